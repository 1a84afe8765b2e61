"""The command line itself: help, version, and what is refused before anything is opened."""

import json
import unittest

from support import DNA, IDS, TEXT, CliTest


class Usage(CliTest):
    def test_version(self):
        result = self.run_program("--version")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout.decode(), r"\Alongwave \d+\.\d+\.\d+\n\Z")

    def test_help(self):
        top = self.run_program("--help")
        self.assertEqual((top.returncode, top.stderr), (0, b""))
        for command in ("run", "inspect", "plot", "bench"):
            self.assertIn(command, top.stdout.decode())
            help_of = self.run_program(command, "--help")
            self.assertEqual((help_of.returncode, help_of.stderr), (0, b""), command)

    def test_help_of_run_names_every_option(self):
        text = self.run_program("run", "--help").stdout.decode()
        for word in ("MODEL", "INPUT", "--task", "--out", "--chunk", "--threads", "--device",
                     "--dtype", "--json", "--quiet", "--window", "--prompt", "--max-new-tokens",
                     "--temperature", "--top-k", "--top-p", "--seed", "--format", "--cache-budget",
                     "--max-logits-bytes", "Examples:", "Exit code"):
            self.assertIn(word, text)

    def test_no_command(self):
        self.assert_refused([], program=())
        self.assert_refused(["fly"], "fly", program=())

    def test_missing_arguments(self):
        self.assert_refused([], "MODEL")
        self.assert_refused([DNA], "input")
        self.assert_refused([DNA, "--task", "generate"], "prompt")
        self.assert_refused([], "MODEL", program=("inspect",))

    def test_values_that_are_refused(self):
        ids = self.npy("ids.npy", [1, 2, 3])
        cases = [
            (["--chunk", "0"], "chunk 0"), (["--chunk", "-5"], "chunk -5"),
            (["--chunk=-5"], "chunk -5"), (["--chunk", "many"], "many"), (["--chunk", "1.5"], "1.5"),
            (["--chunk", "99999999999999999999"], "99999999999999999999"), (["--chunk"], "--chunk"),
            (["--chunk", str(2**63 - 1), "--format", "bytes"], "tokenizer"),
            (["--threads", "-1"], "--threads -1"), (["--threads", "5000000"], "5000000"),
            (["--device", "cuda:99"], "cuda:99"), (["--device", "cuda:x"], "cuda:x"),
            (["--device", "tpu"], "tpu"), (["--dtype", "int8"], "int8"),
            (["--device", "cpu", "--dtype", "bfloat16"], "--dtype bfloat16"),
            (["--task", "guess"], "guess"), (["--format", "xml"], "xml"),
            (["--cache-budget", "much"], "much"), (["--nonsense"], "--nonsense"),
            (["--out", ""], "--out"), (["--out", "-"], "--out"),
            (["another"], "another"), (["--window", "5"], "--window"), (["--seed", "1"], "--seed"),
            (["--prompt", "x"], "--prompt"), (["--top-k", "1"], "--top-k"),
            (["--task", "embed"], "--out"), (["--task", "logits"], "--out"),
            (["--task", "transform"], "--out"),
        ]
        for options, said in cases:
            with self.subTest(options=options):
                self.assert_refused([IDS, ids, *options], said)

    def test_values_of_tasks_that_are_refused(self):
        out = ["--out", self.path("out.npy")]
        embed = [IDS, self.npy("ids.npy", [1, 2, 3]), "--task", "embed", *out]
        self.assert_refused([*embed, "--window", "0"], "window 0")
        self.assert_refused([*embed, "--window", "-3"], "window -3")
        logits = [IDS, self.npy("ids.npy", [1, 2, 3]), "--task", "logits", *out]
        self.assert_refused([*logits, "--max-logits-bytes", "0"], "max-logits-bytes 0")
        generate = [TEXT, "--task", "generate", "--prompt", "x", *out]
        for option, value in (("max-new-tokens", 0), ("max-new-tokens", -1), ("temperature", -0.5),
                              ("top-k", -1), ("top-p", 0), ("top-p", 1.5)):
            with self.subTest(option=option, value=value):
                self.assert_refused([*generate, f"--{option}", value], f"{option} {value}")
        for option in ("top-k", "top-p", "seed"):
            self.assert_refused([*generate, f"--{option}", "1"], f"--{option}", "temperature")
        for value in ("nan", "inf", "hot"):
            self.assert_refused([*generate, "--temperature", value], "temperature")
        self.assert_refused([*generate, "--seed", "-1"], "seed")
        self.assert_refused([TEXT, "--task", "generate", "--prompt", ""], "--prompt")
        self.assert_refused([TEXT, "x.txt", "--task", "generate", "--prompt", "x"], "x.txt")

    def test_a_chunk_that_memory_cannot_hold(self):
        text = self.path("text.txt", "hello")
        for chunk in (10**12, 2**62, 2**63 - 1):
            self.assert_refused([DNA, text, "--chunk", chunk], f"--chunk {chunk}", "memory")
        ids = self.npy("ids.npy", [1, 2, 3])  # of a known length: no chunk is longer than it
        self.run_ok(IDS, ids, "--chunk", 10**12, "--quiet")


class Inspect(CliTest):
    def inspect(self, model, *options):
        result = self.run_program("inspect", model, *options)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return result.stdout.decode()

    def test_text(self):
        text = self.inspect(TEXT)
        for word in ("h3", "layers", "attention in 3", "256", "parameters", "F32", "state", "chunk",
                     "attention cache"):
            self.assertIn(word, text)

    def test_json(self):
        found = json.loads(self.inspect(TEXT, "--json", "--threads", 1, "--chunk", 1000))
        self.assertEqual(found["type"], "h3")
        self.assertEqual((found["layers"], found["width"], found["vocabulary"]), (6, 256, 256))
        self.assertEqual(found["attention_layers"], [3])
        self.assertEqual((found["chunk"], found["threads"]), (1000, 1))
        self.assertEqual(sum(found["weight_dtypes"].values()), found["parameters"])
        self.assertEqual(found["cache_bytes_per_token"], 2 * 256 * 4)
        self.assertEqual(sum(tensor["bytes"] for tensor in found["state"]), found["state_bytes"])
        # Five H3 layers: a state of 64 float32 and a halo of 63 for each of 256 channels.
        self.assertEqual(found["state_bytes"], 5 * 256 * (64 + 63) * 4)

    def test_a_longer_chunk_needs_more(self):
        short, long = (json.loads(self.inspect(DNA, "--json", "--chunk", chunk))
                       for chunk in (1000, 100000))
        self.assertGreater(long["chunk_memory_bytes"], 10 * short["chunk_memory_bytes"])
        self.assertEqual(long["state_bytes"], short["state_bytes"])

    def test_refused(self):
        self.assert_refused([DNA, "--chunk", 0], "chunk 0", program=("inspect",))
        self.assert_refused([DNA, "--threads", -1], "--threads -1", program=("inspect",))


if __name__ == "__main__":
    unittest.main()
