#!/usr/bin/env python3
"""Longwave's convolutions against PyTorch's FFT convolution, on this machine and in one run.

    ./dev bench peers [--json OUT]

The same work for both: 32 channels with a diagonal SSM of 64 states each, float32. PyTorch has the
taps, transformed beforehand, and computes irfft(rfft(u, 2L) * rfft(taps, 2L)). Its result is checked
against the recurrence in float64 before anything is timed; Longwave checks its own.

Debian's PyTorch has no MKL, and its FFT runs on one thread whatever it is told. So PyTorch is timed a
second time with the channels split over the threads, and ratios are to the faster of the two.

Needs python3-torch and python3-numpy.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

DEBIAN = "/usr/bin/python3"
try:
    import numpy as np
    import torch
except ImportError as error:  # another python3 may stand before the one that apt installs for
    if os.path.realpath(sys.executable) != os.path.realpath(DEBIAN) and os.path.exists(DEBIAN):
        os.execv(DEBIAN, [DEBIAN, *sys.argv])
    sys.exit(f"peers.py: {error}; install python3-torch and python3-numpy")

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PAIRS = 32  # 64 states
TOLERANCE = 1e-5
CHECKED = 2048  # tokens of every channel compared with float64


def measure(seconds, run):
    """Seconds of a run: as Longwave's bench does it, a warm-up, then the median and the extremes."""
    run()
    times = []
    while len(times) < 5 or (sum(times) < seconds and len(times) < 1000):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    times.sort()
    return {"median": times[len(times) // 2], "fastest": times[0], "slowest": times[-1]}


# ---- The model: x[t] = a x[t-1] + u[t], y[t] = 2 Re sum_n c_n x_n[t] ----


def ssm(channels):
    """(a, c) of S4D-Lin, (channels, PAIRS) each, b multiplied into c."""
    dt = 1e-3 * 100 ** (np.arange(channels) / channels)[:, None]
    half = 0.5 * dt * (-0.5 + 1j * np.pi * np.arange(PAIRS))
    random = np.random.default_rng(7)
    c = random.normal(size=(channels, PAIRS)) + 1j * random.normal(size=(channels, PAIRS))
    return (1 + half) / (1 - half), c * dt / (1 - half)


def taps(a, c, length):
    """(channels, length) in float64: 2 Re sum_n c_n a_n^l, a block of powers at a time."""
    block = min(length, 1024)
    within = a[:, :, None] ** np.arange(block)
    out = np.empty((len(a), length))
    for begin in range(0, length, block):
        count = min(block, length - begin)
        powers = (c * a**begin)[:, None, :] @ within[:, :, :count]
        out[:, begin : begin + count] = 2 * powers[:, 0].real
    return out


def recurrence(a, c, u):
    """(channels, tokens) in float64."""
    x = np.zeros_like(a)
    y = np.empty(u.shape)
    for t in range(u.shape[1]):
        x = a * x + u[:, t, None]
        y[:, t] = 2 * (c * x).sum(1).real
    return y


# ---- PyTorch ----


def fft_conv(u, spectrum):
    length = u.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * spectrum, n=2 * length)[..., :length]


def torch_rows(options, length):
    channels = options.channels
    a, c = ssm(channels)
    u = torch.from_numpy(np.random.default_rng(3).normal(size=(channels, length)).astype(np.float32))
    k = torch.from_numpy(taps(a, c, length).astype(np.float32))
    spectrum = torch.fft.rfft(k, n=2 * length)
    want = recurrence(a, c, u[:, :CHECKED].double().numpy())

    def whole():
        with torch.inference_mode():
            return fft_conv(u, spectrum)

    parts = min(options.threads, channels)
    slices = [slice(i * channels // parts, (i + 1) * channels // parts) for i in range(parts)]
    # One thread of torch's own in each of these.
    pool = concurrent.futures.ThreadPoolExecutor(parts, initializer=torch.set_num_threads,
                                                 initargs=(1,))

    def part(channel):
        with torch.inference_mode():
            return fft_conv(u[channel], spectrum[channel])

    def split():
        return list(pool.map(part, slices))

    for op, run in (("torch FFT conv, split", split), ("torch FFT conv", lambda: [whole()])):
        got = torch.cat(run())[:, :CHECKED].double().numpy()
        error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
        if not error <= TOLERANCE:
            sys.exit(f"peers.py: {op} at {length} tokens is wrong: relative error {error:.1e}")
        torch.set_num_threads(options.threads)
        timing = measure(options.seconds, run)
        scale = 1e9 / (channels * length)
        yield {"op": op, "length": length, "channels": channels,
               "ns_per_token_channel": timing["median"] * scale,
               "ns_fastest": timing["fastest"] * scale,
               "ns_slowest": timing["slowest"] * scale, "relative_error": error}
    pool.shutdown()


def ceilings(seconds):
    """What this machine can do, by torch."""
    x = torch.ones(32 << 20)
    y = torch.empty_like(x)
    n = 2048
    a, b = torch.randn(n, n), torch.randn(n, n)
    c = torch.empty(n, n)
    copy = measure(seconds, lambda: y.copy_(x))["median"]
    sgemm = measure(seconds, lambda: torch.mm(a, b, out=c))["median"]
    return {"copy_gigabytes_per_second": 8 * x.numel() / copy / 1e9,
            "sgemm_gigaflops": 2 * n**3 / sgemm / 1e9}


# ---- Longwave ----


def longwave(options, length, only):
    command = [options.longwave, "bench", "ops", "--only", only, "--json",
               "--lengths", length, "--channels", options.channels, "--pairs", PAIRS,
               "--threads", options.threads, "--seconds", options.seconds]
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=False)
    if result.returncode:
        sys.exit(f"peers.py: {options.longwave} failed; its message is above")
    return json.loads(result.stdout)


# ---- The table ----


def print_header():
    print(f"{'operator':<22} {'length':>9} {'ns/tok/chan':>12} {'fastest..slowest':>20} "
          f"{'error':>8}  times faster than torch", flush=True)


def print_rows(rows):
    for row in rows:
        spread = f"{row['ns_fastest']:.3f}..{row['ns_slowest']:.3f}"
        print(f"{row['op']:<22} {row['length']:>9} {row['ns_per_token_channel']:>12.3f} "
              f"{spread:>20} {row['relative_error']:>8.0e}  {row['times_faster_than_torch']:.2f}",
              flush=True)


def cpu_name():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit():
    command = ["git", "-C", str(SOURCE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="./dev bench peers", description="Longwave's convolutions against PyTorch's")
    parser.add_argument("--json", metavar="OUT", help="also write the numbers to this file")
    parser.add_argument("--lengths", default="1024,65536,1048576",
                        type=lambda text: [int(part) for part in text.split(",")],
                        help="tokens, separated by commas")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement, at least")
    parser.add_argument("--longwave", default=str(SOURCE / "build" / "longwave"))
    options = parser.parse_args()
    if min(options.lengths) < 1 or options.channels < 1 or options.threads < 1:
        parser.error("lengths, channels and threads are whole numbers from 1")
    if not os.access(options.longwave, os.X_OK):
        parser.error(f"{options.longwave} is not built: run ./dev build")
    if options.json and not pathlib.Path(options.json).resolve().parent.is_dir():
        parser.error(f"--json {options.json}: there is no such folder")
    return options


def main():
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    found = ceilings(options.seconds)
    print(f"{cpu_name()}, {options.threads} threads; torch {torch.__version__}, "
          f"{'MKL' if torch.backends.mkl.is_available() else 'FFT without MKL'}: copy "
          f"{found['copy_gigabytes_per_second']:.1f} GB/s, "
          f"sgemm {found['sgemm_gigaflops']:.0f} GFLOP/s", flush=True)

    print_header()
    rows, programs = [], []
    for length in options.lengths:  # one length after the other, so that both meet the same machine
        peers = list(torch_rows(options, length))
        best = min(row["ns_per_token_channel"] for row in peers)
        for only in ("SsmConv", "LongConv"):
            programs.append(longwave(options, length, only))
            peers += [row for row in programs[-1]["rows"] if row["op"].startswith(only)]
        for row in peers:
            row["times_faster_than_torch"] = best / row["ns_per_token_channel"]
        print_rows(peers)
        rows += peers

    if options.json:
        result = {"device": cpu_name(), "threads": options.threads, "commit": commit(),
                  "longwave": programs[0]["version"], "target": programs[0]["target"],
                  "torch": torch.__version__, "torch_mkl": torch.backends.mkl.is_available(),
                  **found, "rows": rows}
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
