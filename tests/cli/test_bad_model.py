"""Every way a model folder can be wrong: one line, exit code 2, nothing written."""

import json
import shutil
import struct
import unittest

from support import IDS, CliTest, read_safetensors, write_safetensors

EMBEDDING = "backbone.embeddings.word_embeddings.weight"


class BadModel(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        shutil.copytree(IDS, self.model)
        self.weights = self.model / "model.safetensors"
        self.config = self.model / "config.json"
        self.ids = self.npy("ids.npy", [1, 2, 3])

    def refused(self, *said):
        self.assert_refused([self.model, self.ids, "--out", self.path("out.npy")], *said)
        self.assert_refused([self.model], *said, program=("inspect",))

    def spoil(self, edit=None, change=None):
        tensors = read_safetensors(IDS / "model.safetensors")
        if change:
            change(tensors)
        write_safetensors(self.weights, tensors, edit)

    def some_tensor(self):
        tensors = read_safetensors(IDS / "model.safetensors")
        return next(name for name in tensors if len(tensors[name][1]) == 2)

    def test_rewritten_model_runs(self):  # what the spoilt ones are measured by
        self.spoil()
        self.run_ok(self.model, self.ids, "--quiet")

    def test_no_folder(self):
        shutil.rmtree(self.model)
        self.refused("model")

    def test_no_weights(self):
        self.weights.unlink()
        self.refused("model.safetensors")

    def test_no_config(self):
        self.config.unlink()
        self.refused("config.json")

    def test_truncated(self):
        whole = self.weights.read_bytes()
        for size in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
            with self.subTest(size=size):
                self.weights.write_bytes(whole[:size])
                self.refused("model.safetensors")

    def test_header_length_past_the_file(self):
        data = self.weights.read_bytes()
        for length in (len(data), 2**40, 2**63, 2**64 - 1):
            with self.subTest(length=length):
                self.weights.write_bytes(struct.pack("<Q", length) + data[8:])
                self.refused("model.safetensors", length)

    def test_header_is_not_json(self):
        self.weights.write_bytes(struct.pack("<Q", 5) + b"hello" + bytes(100))
        self.refused("model.safetensors")

    def test_overlapping_offsets(self):
        def edit(header):
            names = sorted(header, key=lambda name: header[name]["data_offsets"])
            size = [b - a for a, b in (header[name]["data_offsets"] for name in names[:2])]
            begin = header[names[0]]["data_offsets"][1] - min(size) // 2
            header[names[1]]["data_offsets"] = [begin, begin + size[1]]
        self.spoil(edit)
        self.refused("model.safetensors")

    def test_offsets_out_of_range(self):
        for shift in (10**6, 2**62, -2**40):
            def edit(header):
                name = self.some_tensor()
                begin, end = header[name]["data_offsets"]
                header[name]["data_offsets"] = [begin + shift, end + shift]
            with self.subTest(shift=shift):
                self.spoil(edit)
                self.refused("model.safetensors", self.some_tensor())

    def test_missing_tensor(self):
        name = self.some_tensor()
        self.spoil(change=lambda tensors: tensors.pop(name))
        self.refused(name, "model.safetensors")

    def test_wrong_shape_names_both(self):
        name = self.some_tensor()
        shape = read_safetensors(self.weights)[name][1]

        def change(tensors):
            dtype, _, data = tensors[name]
            tensors[name] = (dtype, [shape[0] * shape[1] // 2, 2], data)
        self.spoil(change=change)
        self.refused(name, f"({shape[0]}, {shape[1]})", f"({shape[0] * shape[1] // 2}, 2)")

    def test_wrong_dtype(self):
        name = self.some_tensor()

        def change(tensors):
            _, shape, data = tensors[name]
            tensors[name] = ("I32", shape, data)
        self.spoil(change=change)
        self.refused(name, "I32")

    def test_weight_not_finite(self):
        name = self.some_tensor()
        for value in (float("nan"), float("inf"), float("-inf")):
            def change(tensors):
                dtype, shape, data = tensors[name]
                tensors[name] = (dtype, shape, data[:400] + struct.pack("<f", value) + data[404:])
            with self.subTest(value=value):
                self.spoil(change=change)
                self.refused(name)

    def test_config_is_not_json(self):
        for text in ("", "{", "hello", "[]", "{\"d_model\": }", "null", "{\"a\":1}{", "\xff\xfe"):
            with self.subTest(text=text):
                self.config.write_text(text)
                self.refused("config.json")

    def test_config_field_missing_or_wrong(self):
        good = json.loads(self.config.read_text())
        cases = [("model_type", None), ("d_model", None), ("n_layer", None), ("vocab_size", None),
                 ("model_type", "mamba"), ("d_model", "64"), ("d_model", 0), ("d_model", -64),
                 ("d_model", 64.5), ("d_model", 2**60), ("n_layer", -1), ("head_dim", 7),
                 ("vocab_size", 0), ("attn_layer_idx", [99]), ("attn_layer_idx", "1"),
                 ("layer_norm_epsilon", -1.0)]
        for field, value in cases:
            config = {name: v for name, v in good.items() if name != field}
            if value is not None:
                config[field] = value
            with self.subTest(field=field, value=value):
                self.config.write_text(json.dumps(config))
                self.refused(field)

    def test_config_of_another_model(self):
        config = json.loads(self.config.read_text())
        config["d_model"] = 128
        self.config.write_text(json.dumps(config))
        self.refused("128", "64")


if __name__ == "__main__":
    unittest.main()
