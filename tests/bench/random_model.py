#!/usr/bin/env python3
"""Writes a model folder of random weights, as fast as a disk takes it: for benches of whole programs.

    tests/bench/random_model.py FOLDER [--shape h3-125m]

The shapes are those of `longwave bench model`, the values have the sizes that trained ones have, but
no meaning: each tensor repeats one block of random numbers. Needs the standard library of Python 3.
"""

import argparse
import array
import json
import math
import pathlib
import random
import struct

SHAPES = {  # d_model, n_layer, vocab_size
    "h3-125m": (768, 12, 50264),
    "h3-355m": (1024, 24, 50264),
    "h3-1.3b": (2048, 24, 50264),
    "tiny": (32, 2, 256),  # to try a bench without a GPU
}
D_STATE = 64
BLOCK = 65537  # a prime: the rows of a matrix do not repeat with it


def tensors(d_model, n_layer, vocab_size):
    """[(name, shape, mean, scale)]: values are mean + scale u, u uniform with variance one."""
    d, pairs = d_model, D_STATE // 2
    found = [("backbone.embeddings.word_embeddings.weight", (vocab_size, d), 0, 0.02)]

    def norm(name):
        found.extend([(name + ".weight", (d,), 1, 0.1), (name + ".bias", (d,), 0, 0.02)])

    def linear(name, out, width):
        found.extend([(name + ".weight", (out, width), 0, 1 / math.sqrt(width)),
                      (name + ".bias", (out,), 0, 0.02)])

    for layer in range(n_layer):
        prefix = f"backbone.layers.{layer}."
        mixer, kernel = prefix + "mixer.", prefix + "mixer.kernel.kernel."
        norm(prefix + "norm1")
        norm(prefix + "norm2")
        linear(prefix + "mlp.fc1", 4 * d, d)
        linear(prefix + "mlp.fc2", d, 4 * d)
        for name in ("q_proj", "k_proj", "v_proj", "output_linear"):
            linear(mixer + name, d, d)
        found.extend([
            (mixer + "ssm_k_kernel.kernel.B", (d, D_STATE), 0, 0.3),
            (mixer + "ssm_k_kernel.kernel.C", (1, d, D_STATE), 0, 0.3),
            (mixer + "ssm_k_D", (d,), 0, 1),
            (kernel + "B", (d, pairs, 2), 1, 1),
            (kernel + "C", (1, d, pairs, 2), 0, 1),
            (kernel + "inv_A_real", (d, pairs), math.log(0.5), 0.1),
            (kernel + "A_imag", (d, pairs), None, math.pi),  # S4D-Lin: pi times the pair's number
            (kernel + "log_dt", (d,), math.log(1e-2), math.log(10) / math.sqrt(3)),
            (mixer + "D", (d,), 0, 1),
        ])
    norm("backbone.ln_f")
    return found


def write_model(folder, shape="h3-125m"):
    """Returns the bytes of its weights: float32."""
    d_model, n_layer, vocab_size = SHAPES[shape]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "h3", "d_model": d_model, "n_layer": n_layer, "d_state": D_STATE,
              "d_inner": 4 * d_model, "vocab_size": vocab_size, "head_dim": 1}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    source = random.Random(1)
    unit = [math.sqrt(12) * (source.random() - 0.5) for _ in range(BLOCK)]
    blocks, header, end = {}, {}, 0
    found = tensors(d_model, n_layer, vocab_size)
    for name, size, _, _ in found:
        begin, end = end, end + 4 * math.prod(size)
        header[name] = {"dtype": "F32", "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, size, mean, scale in found:
            if (mean, scale) not in blocks:
                values = ([scale * i for i in range(size[-1])] if mean is None else
                          [mean + scale * u for u in unit])
                blocks[mean, scale] = array.array("f", values).tobytes()
            block = blocks[mean, scale]
            whole, rest = divmod(4 * math.prod(size), len(block))
            for _ in range(whole):
                file.write(block)
            file.write(block[:rest])
    return end


def main():
    parser = argparse.ArgumentParser(description="A model folder of random weights")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="h3-125m")
    options = parser.parse_args()
    print(f"{options.folder}: {options.shape}, {write_model(options.folder, options.shape) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
