#!/usr/bin/env python3
"""One long sequence on one GPU and on two, over ZeroMQ and over NCCL: seconds, how much of two GPUs is
used, and the bytes that cross the border of a chunk. A table, and JSON.

    tests/bench/two_gpus.py [--longwave PROGRAM] [--devices cuda:0,cuda:1] [--out OUT.json]

Starts `longwave serve` and a `longwave worker` for each device, with a model of random weights, for each
way in turn: one worker, two with --collective zmq, two with --collective nccl. A way's first jobs are
not counted: they load the model and make the links. Seconds are the server's, from a job's start to its
end (started_ms, finished_ms), tokens read and outputs stored included; the median of --jobs is told. All
outputs must be the same bytes. Needs the standard library of Python 3; takes one to two minutes.

Without a GPU: --devices cpu,cpu --shape tiny --tokens 65536 --chunk 4096
"""

import argparse
import array
import datetime
import hashlib
import json
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from random_model import SHAPES, write_model  # noqa: E402

SOURCE = pathlib.Path(__file__).resolve().parents[2]
LINKS = ("process", "zmq", "nccl")
PATIENCE = 60  # seconds, for anything


def say(message):
    print(message, file=sys.stderr, flush=True)


def wait_for(what, condition, pause=0.005):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    sys.exit(f"two_gpus.py: {what}: not within {PATIENCE} s")


class Cluster:
    """A server and a worker for each device; their standard errors are files of `folder`."""

    def __init__(self, longwave, folder, models, devices, collective):
        self.processes, self.folder = [], folder
        folder.mkdir()
        server = self.start("server", longwave, "serve", "--data", folder / "data", "--models", models,
                            "--workers", "0", "--listen", "127.0.0.1:0", "--worker-listen",
                            "tcp://127.0.0.1:0", stdout=subprocess.PIPE, text=True)
        self.url = server.stdout.readline().split()[-1]
        connect = server.stdout.readline().split()[-1]
        self.workers = [f"worker-{i}" for i in range(len(devices))]
        for name, device in zip(self.workers, devices):
            self.start(name, longwave, "worker", "--connect", connect, "--device", device, "--collective",
                       collective, "--name", name, "--metrics-listen", "127.0.0.1:0")
        wait_for("workers", lambda: len(self.json("/v1/workers")["workers"]) == len(devices))
        self.metrics = [wait_for(f"metrics of {name}", lambda: re.search(
            r"metrics.*url=(\S+)", self.errors(name))).group(1) for name in self.workers]

    def start(self, name, *command, **options):
        with open(self.folder / f"{name}.err", "w") as errors:
            process = subprocess.Popen([str(part) for part in command], stderr=errors, **options)
        self.processes.append(process)
        return process

    def errors(self, name):
        return (self.folder / f"{name}.err").read_text()

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()

    def request(self, path, body=None):
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body),
                                    timeout=PATIENCE) as answer:
            return answer.read()

    def json(self, path, value=None):
        return json.loads(self.request(path, None if value is None else json.dumps(value).encode()))

    def links(self):
        """{link: bytes that all workers have received by it, "store": chunks begun from there}"""
        names = {link: f'longwave_state_received_bytes_total{{link="{link}"}} ' for link in LINKS}
        names["store"] = "longwave_states_from_store_total "
        total = dict.fromkeys(names, 0)
        for url in self.metrics:
            with urllib.request.urlopen(url + "/metrics", timeout=PATIENCE) as answer:
                lines = answer.read().decode().splitlines()
            for key, name in names.items():
                total[key] += sum(int(float(line[len(name):])) for line in lines if line.startswith(name))
        return total

    def run(self, file, model, chunk):
        """{seconds, sha256, links: what came by them during the job}"""
        before = self.links()
        id = self.json("/v1/jobs", {"model": model, "input": file, "chunk": chunk})["id"]
        job = wait_for(f"job {id}", lambda: (
            lambda job: job if job["state"] not in ("queued", "running") else None)(
                self.json(f"/v1/jobs/{id}")))
        if job["state"] != "succeeded":
            sys.exit(f"two_gpus.py: job {id} {job['state']}: {job.get('error')}")
        output = self.request(f"/v1/jobs/{id}/output")
        after = self.links()
        return {"seconds": (job["finished_ms"] - job["started_ms"]) / 1000,
                "sha256": hashlib.sha256(output).hexdigest(),
                "links": {link: after[link] - before[link] for link in after}}


def tokens_file(count, vocab_size):
    """A .npy of so many ids."""
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({count},)}}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    values = array.array("i", ((i * 2654435761 >> 7) % vocab_size for i in range(count)))
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values.tobytes()


def measure(options, folder, name, devices, collective):
    say(f"{name}: {', '.join(devices)}, --collective {collective}")
    begin = time.monotonic()
    cluster = Cluster(options.longwave, folder / name, folder / "models", devices, collective)
    try:
        content = tokens_file(options.tokens, SHAPES[options.shape][2])
        file = json.loads(cluster.request("/v1/files?name=tokens.npy", content))["id"]
        end = time.monotonic() + options.warm_up
        while True:  # at least two jobs, and until the links are there
            cluster.run(file, options.shape, options.chunk)
            warm = cluster.run(file, options.shape, options.chunk)
            if collective != "nccl" or warm["links"]["nccl"] > 0 or time.monotonic() > end:
                break
        jobs = [cluster.run(file, options.shape, options.chunk) for _ in range(options.jobs)]
        half = cluster.run(file, options.shape, options.chunk // 2)
        seconds = [job["seconds"] for job in jobs]
        borders = {}
        for chunk, job in ((options.chunk, jobs[-1]), (options.chunk // 2, half)):
            count = -(-options.tokens // chunk) - 1 - job["links"]["store"]
            total = sum(job["links"][link] for link in LINKS)
            borders[str(chunk)] = {"over_links": count, **job["links"],
                                   "bytes_a_border": total / count if count else 0}
        failures = [line for worker in cluster.workers for line in cluster.errors(worker).splitlines()
                    if "NCCL" in line]
        return {"name": name, "devices": devices, "collective": collective, "seconds": seconds,
                "median_seconds": statistics.median(seconds), "fastest_seconds": min(seconds),
                "borders": borders, "sha256": sorted({job["sha256"] for job in jobs}),
                "sha256_half_chunk": half["sha256"], "log": failures,
                "took_seconds": time.monotonic() - begin}
    finally:
        cluster.stop()


def main():
    parser = argparse.ArgumentParser(description="One sequence on one GPU and on two",
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longwave", default=shutil.which("longwave") or SOURCE / "build" / "longwave")
    parser.add_argument("--devices", default="cuda:0,cuda:1", type=lambda text: text.split(","))
    parser.add_argument("--shape", choices=sorted(SHAPES), default="h3-125m")
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--chunk", type=int, default=65536)
    parser.add_argument("--jobs", type=int, default=5, help="that are counted, of each way")
    parser.add_argument("--warm-up", type=float, default=20, help="seconds at most for NCCL to be up")
    parser.add_argument("--folder", type=pathlib.Path, help="for all files; kept (default: a new one)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("two-gpus.json"))
    options = parser.parse_args()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="longwave-two-gpus-"))
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    try:
        size = write_model(folder / "models" / options.shape, options.shape)
        say(f"a model of {size / 1e6:.0f} MB: {time.monotonic() - begin:.1f} s")
        gpus = all(device.startswith("cuda") for device in options.devices)
        ways = [("one", options.devices[:1], "zmq"), ("zmq", options.devices, "zmq")]
        ways += [("nccl", options.devices, "nccl")] if gpus else []
        found = [measure(options, folder, *way) for way in ways]
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    try:
        gpu = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                             capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        gpu = []
    one = found[0]["median_seconds"]
    print("| way | seconds, median (fastest) | tokens/s | x one | efficiency | bytes a border at "
          f"{options.chunk} | at {options.chunk // 2} |\n|---|---|---|---|---|---|---|")
    for way in found:
        way["times_one"] = one / way["median_seconds"]
        way["efficiency"] = way["times_one"] / len(way["devices"])
        borders = [f"{border['bytes_a_border']:.0f}" for border in way["borders"].values()]
        print(f"| {way['name']} | {way['median_seconds']:.3f} ({way['fastest_seconds']:.3f}) | "
              f"{options.tokens / way['median_seconds']:,.0f} | {way['times_one']:.3f} | "
              f"{way['efficiency']:.1%} | {' | '.join(borders)} |")
    problems = []
    if len({digest for way in found for digest in way["sha256"]}) != 1:
        problems.append("outputs differ")
    for way in found:
        sizes = {border["bytes_a_border"] for border in way["borders"].values()} - {0}
        if len(sizes) > 1:
            problems.append(f"{way['name']}: bytes a border depend on the chunk: {sorted(sizes)}")
        if way["collective"] == "nccl" and not all(b["nccl"] for b in way["borders"].values()):
            problems.append(f"{way['name']}: nothing went by NCCL: {way['log']}")
    options.out.write_text(json.dumps({
        "kind": "two-gpus", "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"), "gpus": gpu, "shape": options.shape, "tokens": options.tokens,
        "chunk": options.chunk, "ways": found, "problems": problems,
        "took_seconds": time.monotonic() - begin}, indent=1) + "\n")
    say(f"{options.out}, {time.monotonic() - begin:.0f} s" + "".join(f"\n{p}" for p in problems))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
