#!/usr/bin/env python3
"""Longwave on a GPU beside its peers, on one device and in one run: a table, and JSON.

    tests/bench/gpu_peers.py [--only PART,...] [--lengths L,...] [--json OUT]
    PARTs: ceilings, longwave, fft, attention, flashfftconv, generate, model

Times are picoseconds per token and channel of the forward pass, 768 channels, 2^20 tokens in all
(batch = 2^20 / L; above 2^20 tokens one sequence of fewer channels), medians between CUDA events.

  fft            torch.fft: irfft(rfft(u, 2L) * k_f), k_f computed beforehand, in float32
  attention      torch's causal scaled_dot_product_attention, 12 heads of 64: FlashAttention-2, cuDNN
  flashfftconv   FlashFFTConv where it is importable; it transforms the taps in every call
  generate       Hugging Face's GPT-2 of 1.3B parameters, float16: 128 new tokens for 64 prompts of 512,
                 1024 and 1536, the prompt's time included
  longwave       longwave bench ops, which checks its own results
  model          longwave bench model, the same program's models, where it has that

What is not installed is left out, and the table says so. Each convolution is checked against float64
before it is timed. Needs Python 3 with torch and its CUDA; takes a few minutes for everything.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"gpu_peers.py: {error}; this needs a Python 3 with torch")

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PARTS = ["ceilings", "longwave", "fft", "attention", "flashfftconv", "generate", "model"]
TOKENS, CHANNELS, HEADS = 1 << 20, 768, 12
MOST_ATTENTION = 1 << 18  # tokens of a sequence: the time of one grows with its square
LENGTHS = [1 << power for power in range(8, 23)]  # 256 to 4M
DEVICE = "cuda"


def say(message):
    print(message, file=sys.stderr, flush=True)


def shape(length):
    """(batch, channels)"""
    return max(1, TOKENS // length), CHANNELS if length <= TOKENS else CHANNELS * TOKENS // length


def measure(run, budget=0.15):
    """Milliseconds: median, fastest, slowest. One run to warm up, then 3 to 9 as `budget` allows."""
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
    flush = torch.empty(2 * cache, dtype=torch.int8, device=DEVICE)
    run()
    times = []
    while len(times) < 3 or (len(times) < 9 and sum(times) < 1e3 * budget):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    times.sort()
    return times[len(times) // 2], times[0], times[-1]


def row(name, dtype, length, batch, channels, times, **more):
    scale = 1e9 / (batch * channels * length)
    median, fastest, slowest = times
    return {"op": name, "dtype": dtype, "length": length, "batch": batch, "channels": channels,
            "ps_per_token_channel": median * scale, "ps_fastest": fastest * scale,
            "ps_slowest": slowest * scale, **more}


def guarded(name, length, run):
    """run()'s row, or none: a peer that fails at a length does not end the others."""
    try:
        result = run()
    except Exception as error:  # noqa: BLE001: whatever a peer throws
        say(f"{name}, {length} tokens: {str(error).splitlines()[0][:160] if str(error) else error!r}")
        result = {"op": name, "length": length, "failed": str(error)[:200]}
    torch.cuda.empty_cache()
    return result


# ---- the peers ----


def ceilings():
    x = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE).random_()
    y = torch.empty_like(x)
    copy = measure(lambda: y.copy_(x))[0]
    n = 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product = measure(lambda: a @ b)[0]
    return {"copy_gigabytes_per_second": 2 * x.numel() / copy / 1e6,
            "matmul_teraflops": 2 * n**3 / product / 1e9}


def convolution_error(y, u, taps):
    """Relative, against float64: the first and last tokens of one sequence and channel."""
    length = u.shape[-1]
    positions = sorted({*range(min(length, 64)), *range(max(0, length - 64), length)})
    u, taps = u[-1, -1].double(), taps[-1].double()
    want = torch.stack([torch.dot(u[: t + 1], taps[: t + 1].flip(0)) for t in positions])
    got = y[-1, -1].double()[positions]
    return ((got - want).norm() / want.norm()).item()


def inputs(length, dtype):
    batch, channels = shape(length)
    generator = torch.Generator(device=DEVICE).manual_seed(length)
    u = torch.randn(batch, channels, length, device=DEVICE, dtype=dtype, generator=generator)
    taps = torch.randn(channels, length, device=DEVICE, generator=generator) / math.sqrt(length)
    return u, taps


def torch_fft(length):
    u, taps = inputs(length, torch.bfloat16)
    batch, channels = shape(length)
    spectrum = torch.fft.rfft(taps, n=2 * length)

    def run(v=u):
        return torch.fft.irfft(torch.fft.rfft(v.float(), n=2 * length) * spectrum,
                               n=2 * length)[..., :length].to(v.dtype)

    error = convolution_error(run(u[-1:]), u, taps)
    return row("torch.fft", "bfloat16", length, batch, channels, measure(run), relative_error=error)


def attention(backend, name, length):
    from torch.nn.attention import sdpa_kernel
    # A smaller batch than the convolutions': where one sequence is enough work, more only take longer.
    batch = max(1, min(TOKENS, 1 << 17) // length)
    q, k, v = (torch.randn(batch, HEADS, length, CHANNELS // HEADS, device=DEVICE,
                           dtype=torch.bfloat16) for _ in range(3))
    with sdpa_kernel(backend), torch.inference_mode():
        times = measure(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    return row(name, "bfloat16", length, batch, CHANNELS, times)


def flash_fft_conv(module, dtype, name, length):
    u, taps = inputs(length, dtype)
    batch, channels = shape(length)
    conv = module(2 * length, dtype=dtype).to(DEVICE)
    with torch.no_grad():
        error = convolution_error(conv(u[-2:], taps), u, taps)
        times = measure(lambda: conv(u, taps))
    return row("FlashFFTConv", name, length, batch, channels, times, relative_error=error)


def peers(options, only):
    rows, left_out = [], []
    if "fft" in only:
        rows += [guarded("torch.fft", n, lambda n=n: torch_fft(n)) for n in options.lengths]
    if "attention" in only:
        from torch.nn.attention import SDPBackend
        for backend, name in ((SDPBackend.FLASH_ATTENTION, "FlashAttention-2"),
                              (SDPBackend.CUDNN_ATTENTION, "cuDNN attention")):
            rows += [guarded(name, n, lambda n=n: attention(backend, name, n))
                     for n in options.lengths if n <= MOST_ATTENTION]
    if "flashfftconv" in only:
        try:
            from flashfftconv import FlashFFTConv
        except ImportError as error:
            left_out.append(f"FlashFFTConv: {error}")
        else:
            for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float16, "float16")):
                rows += [guarded("FlashFFTConv", n,
                                 lambda n=n: flash_fft_conv(FlashFFTConv, dtype, name, n))
                         for n in options.lengths if 256 <= n <= 2 << 20 and n & (n - 1) == 0]
    return rows, left_out


def generate(prompts):
    """Tokens per second of GPT-2 1.3B, or why not."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        return [], [f"GPT-2: {error}"]
    config = GPT2Config(vocab_size=50264, n_positions=2048, n_embd=2048, n_layer=24, n_head=16)
    with torch.device(DEVICE):
        model = GPT2LMHeadModel(config).to(dtype=torch.float16).eval()
    rows, batch, new = [], 64, 128

    def run(ids, count):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.inference_mode():
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                           min_new_tokens=count, do_sample=False, pad_token_id=0)
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    for prompt in prompts:
        ids = torch.randint(0, 100, (batch, prompt), device=DEVICE)

        def timed(ids=ids, prompt=prompt):
            run(ids, 4)  # warm: kernels chosen, memory held; a whole run takes long
            seconds = run(ids, new)
            return {"op": "Hugging Face GPT-2 1.3B", "dtype": "float16", "batch": batch,
                    "prompt": prompt, "new_tokens": new, "seconds": seconds,
                    "tokens_per_second": batch * new / seconds}

        result = guarded("GPT-2 1.3B", prompt, timed)
        rows.append(dict(result, prompt=prompt))
    return rows, []


# ---- Longwave ----


def longwave(options, arguments):
    """What `longwave bench ARGUMENTS --json` wrote, or None."""
    command = [*options.longwave, "bench", *map(str, arguments), "--json"]
    say(" ".join(command))
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    try:
        return json.loads(run.stdout)
    except ValueError:
        say(f"{command[0]} failed with code {run.returncode}")
        return None


def has_model(options):
    text = subprocess.run([*options.longwave, "bench", "--help"], capture_output=True, text=True,
                          check=False).stdout
    return re.search(r"^\s*model\b", text, re.MULTILINE) is not None


def ours(options, only):
    found = {}
    if "longwave" in only:
        lengths = ",".join(map(str, options.lengths))
        found["ops"] = {"rows": [], "failures": []}
        for op in ("SsmConv dual", "H3Mix", "LongConv"):
            part = longwave(options, ["ops", "--device", "cuda:0", "--only", op, "--lengths", lengths,
                                      "--dtype", "bfloat16,float16"])
            for key in ("rows", "failures"):
                found["ops"][key] += [r for r in (part or {}).get(key, [])
                                      if key == "failures" or r["op"] != "copy"]
            found["ops"].update({key: part[key] for key in ("gpu", "version") if part and key in part})
    if "model" in only:
        if has_model(options):
            found["model"] = longwave(options, ["model", "--device", "cuda:0"])
        else:
            say("this longwave has no `bench model`: left out")
    return found


# ---- the table ----


def label(r):
    short = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    return f"{r['op']} {short.get(r['dtype'], r['dtype'])}"


def print_table(rows, lengths):
    """A line for each operator, a column for each length; then how many times faster we are."""
    rows = [r for r in rows if "ps_per_token_channel" in r and r["op"] != "SsmConv gates"]
    table = {}
    for r in rows:
        table.setdefault(label(r), {})[r["length"]] = r["ps_per_token_channel"]
    names = sorted(table, key=lambda name: (not name.startswith(("SsmConv", "H3Mix", "LongConv")), name))

    def line(name, cells, form):
        print(f"{name:<24}" + "".join(f"{format(c, form) if c is not None else '':>8}" for c in cells))

    print(f"\n{'ps per token and channel':<24}" + "".join(f"{human(n):>8}" for n in lengths))
    for name in names:
        line(name, [table[name].get(n) for n in lengths], ".2f")
    for own in ("SsmConv dual bf16", "LongConv bf16", "LongConv fp16"):
        if own not in table:
            continue
        print(f"\ntimes faster: {own}")
        for name in names:
            if name.startswith(("SsmConv", "H3Mix", "LongConv")):
                continue
            line(name, [table[name][n] / table[own][n] if n in table[name] and n in table[own] else None
                        for n in lengths], ".1f")


def human(n):
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if n >= size and n % size == 0:
            return f"{n // size}{unit}"
    return str(n)


def our_generation(model):
    """{prompt: row} of `bench model`'s generation rows, whatever else it has."""
    rows = (model or {}).get("rows", [])
    return {r["prompt"]: r for r in rows if r.get("new_tokens") and r.get("tokens_per_second")
            and "1.3" in str(r.get("shape", r.get("op", "")))}


def print_generation(rows, model):
    mine = our_generation(model)
    for r in rows:
        if "tokens_per_second" not in r:
            continue
        own = mine.get(r["prompt"])
        text = (f"; Longwave {own['tokens_per_second']:.0f}, "
                f"{own['tokens_per_second'] / r['tokens_per_second']:.1f} x") if own else ""
        print(f"{r['op']}, batch {r['batch']}, prompt {r['prompt']}: "
              f"{r['tokens_per_second']:.0f} tokens/s{text}")


def bundle():
    try:
        return json.loads((SOURCE / "bundle.json").read_text())
    except (OSError, ValueError):
        return {}


def commit():
    if bundle():
        return bundle()["commit"], bundle()["changes"]
    try:
        git = ["git", "-C", str(SOURCE)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        state = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"],
                               capture_output=True, text=True, check=True)
        return head.stdout.strip(), bool(state.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def parse_arguments():
    parser = argparse.ArgumentParser(description="Longwave and its peers on one GPU",
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=PARTS, type=lambda text: text.split(","),
                        help="parts, separated by commas")
    parser.add_argument("--lengths", default=LENGTHS,
                        type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--prompts", default=[512, 1024, 1536],
                        type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--json", type=pathlib.Path, metavar="OUT", help="also write the numbers here")
    parser.add_argument("--longwave", help="the program (default: gpu-check's, or build/longwave)")
    options = parser.parse_args()
    unknown = [part for part in options.only if part not in PARTS]
    if unknown:
        parser.error(f"--only {unknown[0]}: the parts are {', '.join(PARTS)}")
    if options.longwave:
        options.longwave = [options.longwave]
    elif (SOURCE / "gpu-check").exists():
        options.longwave = [sys.executable, str(SOURCE / "gpu-check"), "--run", "longwave"]
    else:
        options.longwave = [str(SOURCE / "build" / "longwave")]
    if {"longwave", "model"} & set(options.only) and not os.access(options.longwave[0], os.X_OK):
        parser.error(f"{options.longwave[0]} is not built: run ./dev build")
    return options


def main():
    options = parse_arguments()
    if not torch.cuda.is_available():
        sys.exit("gpu_peers.py: torch sees no GPU")
    begin = time.monotonic()
    head, changes = commit()
    result = {"kind": "gpu-peers", "commit": head, "changes": changes,
              "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "device": {"name": torch.cuda.get_device_name(0), "torch": torch.__version__,
                         "cuda": torch.version.cuda}}
    print(f"{result['device']['name']}; torch {torch.__version__}; Longwave {head[:12]}", flush=True)

    def write():  # after each part, so that a run cut short keeps what it had
        if options.json:
            partial = options.json.with_name(options.json.name + ".partial")
            partial.write_text(json.dumps(result, indent=1) + "\n")
            partial.rename(options.json)

    if "ceilings" in options.only:
        result["ceilings"] = ceilings()
        torch.cuda.empty_cache()
        print(f"copy {result['ceilings']['copy_gigabytes_per_second']:.0f} GB/s, bf16 matmul "
              f"{result['ceilings']['matmul_teraflops']:.0f} TFLOP/s", flush=True)
    result["longwave"] = ours(options, options.only)  # while torch holds no memory to speak of
    write()
    rows, left_out = peers(options, options.only)
    result["peers"], result["left_out"] = rows, left_out
    write()
    if "generate" in options.only:
        result["generation"], more = generate(options.prompts)
        left_out += more
    result["seconds"] = round(time.monotonic() - begin, 1)
    write()

    print_table((result["longwave"].get("ops") or {}).get("rows", []) + rows, options.lengths)
    print_generation(result.get("generation", []), result["longwave"].get("model"))
    for text in left_out:
        print(f"left out: {text}")
    print(f"{result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
