#!/usr/bin/env python3
"""One long sequence over 1, 2, 4 ... GPUs, a worker process each: seconds, parallel efficiency, and what
crosses the borders of chunks, with NCCL, with ZeroMQ, and as the naive wavefront, in which a worker waits for
its predecessor's whole layer. A table, JSON, and the trace of one run.

    tests/bench/scaling.py [--models h3-125m,h3-1.3b] [--tokens 1M,4M,16M] [--gpus 1,2,4,8] [--out FOLDER]

Starts `longwave serve` and its workers, with a model of random weights, for each model, number of GPUs and
link in turn. The first jobs are not counted: they load the model and make the links. Seconds are the
server's, from a job's start to its end (started_ms, finished_ms), tokens read and outputs stored included; the
median of --repeat jobs is told. Efficiency is against the one-GPU run of the same model, tokens and chunk. All
outputs of a model and number of tokens must be the same bytes for one chunk length. What fails is told and
left out; the rest goes on. results.json in the folder is written after each way, so that it is there
whenever the bench is stopped. Needs the standard library of Python 3.

Without a GPU: --devices cpu --models tiny --tokens 64K --chunk 4K --gpus 1,2 (one thread a worker)
Simulated:     --devices sim:layer_ms=2,layers=12 --count 64 --models tiny --tokens 8M
"""

import argparse
import array
import datetime
import gzip
import json
import os
import pathlib
import platform
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from bench_cluster import LINKS, BenchError, Cluster  # noqa: E402
from random_model import SHAPES, write_model  # noqa: E402

SOURCE = pathlib.Path(__file__).resolve().parents[2]
WAYS = ("nccl", "zmq", "wave")  # wave: the naive wavefront, by the first link that there is
SIMULATED_A_PROCESS = 16
LONGEST_JOB = 600  # seconds
NCCL_WARM_UP = 20  # seconds at most until the communicators are there


def say(message):
    print(message, file=sys.stderr, flush=True)


def count_of(text):
    found = re.fullmatch(r"(\d+)([KM]?)", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" must be a count: 65536, 64K or 1M')
    return int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]]


def list_of(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def human(count):
    for bits, unit in ((20, "M"), (10, "K")):
        if count % (1 << bits) == 0:
            return f"{count >> bits}{unit}"
    return str(count)


def tokens_file(count, vocab_size):
    """A .npy of so many ids, at random in blocks of 65537."""
    source = random.Random(2)
    block = array.array("i", (source.randrange(vocab_size) for _ in range(65537)))
    values = (block * (count // len(block) + 1))[:count]
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({count},)}}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values.tobytes()


# ---- the machine ----


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def machine():
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    about = {"commit": output_of("git", "-C", str(SOURCE), "rev-parse", "HEAD")}
    if (SOURCE / "bundle.json").exists():
        about = {key: json.loads((SOURCE / "bundle.json").read_text())[key] for key in ("commit", "changes")}
    gpus = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    return {"kind": "scaling", **about,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "device": {"gpus": gpus, "processor": cpu[1] if cpu else platform.processor(),
                       "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0]},
            "topology": output_of("nvidia-smi", "topo", "-m")}


# ---- one way: a model on so many workers, linked so ----


class Way:
    def __init__(self, options, model, workers, name):
        self.options, self.model, self.workers, self.name = options, model, workers, name
        gpus = options.devices.startswith("cuda")
        self.link = "zmq" if name == "one" else "nccl" if name == "wave" and gpus else name
        self.link = self.link if gpus else "zmq"
        self.wave = name == "wave"

    def __str__(self):
        return f"{self.model}, {self.workers} x {self.options.devices}, {self.name}"

    def worker_options(self):
        """Of each process."""
        devices = self.options.devices
        if devices.startswith("sim"):
            device = f"{devices}{',' if ':' in devices else ':'}wave={int(self.wave)}"
            processes = -(-self.workers // SIMULATED_A_PROCESS)
            shares = [self.workers // processes + (i < self.workers % processes) for i in range(processes)]
            return [["--device", device, "--count", str(share)] for share in shares]
        wave = ["--wavefront"] if self.wave else []
        if devices == "cpu":
            return [["--device", "cpu", "--threads", "1", *wave]] * self.workers
        return [["--device", f"cuda:{i}", "--collective", self.link, *wave] for i in range(self.workers)]

    def run(self, folder, trace_file):
        """Yields a row for each number of tokens and chunk length."""
        options = self.options
        cluster = Cluster(options.longwave, folder, folder.parent / "models", self.worker_options(),
                          self.workers)
        try:
            files = {}

            def job(tokens, chunk, **more):
                if tokens not in files:
                    files[tokens] = cluster.upload(tokens_file(tokens, SHAPES[self.model][2]), "tokens.npy")
                return cluster.run(LONGEST_JOB, model=self.model, input=files[tokens], chunk=chunk, **more)

            shortest, first_chunk = min(options.tokens), options.chunk[0]
            end = time.monotonic() + NCCL_WARM_UP
            while True:  # at least two jobs, and until the links are there
                job(shortest, first_chunk)
                warm = job(shortest, first_chunk)
                if self.workers == 1 or self.link != "nccl" or warm["nccl"]["received_bytes"]:
                    break
                if time.monotonic() > end:
                    raise BenchError(f"nothing goes by NCCL: {self.nccl_log(cluster)}")
            for chunk in options.chunk:
                if chunk != first_chunk:
                    job(shortest, chunk)  # makes room for it
                for tokens in sorted(options.tokens):
                    repeat = max(2, options.repeat * shortest // tokens) if options.repeat > 1 else 1
                    yield self.row(cluster, tokens, chunk, [job(tokens, chunk) for _ in range(repeat)])
            if self.workers > 1:  # what crosses a border must not depend on the chunk
                yield self.row(cluster, shortest, first_chunk // 2, [job(shortest, first_chunk // 2)])
            if trace_file:
                traced = job(shortest, first_chunk, trace=True)
                trace = cluster.request(f"/v1/jobs/{traced['id']}/trace")
                trace_file.write_bytes(gzip.compress(trace, mtime=0))
                say(f"  {trace_file}: a job of {traced['seconds']:.3f} s")
        finally:
            cluster.stop()

    def nccl_log(self, cluster):
        return [line for name in cluster.workers for line in cluster.errors(name).splitlines()
                if "NCCL" in line][-3:]

    def row(self, cluster, tokens, chunk, jobs):
        seconds = [job["seconds"] for job in jobs]
        last = jobs[-1]
        commits = cluster.commits(last["id"])
        borders = -(-tokens // chunk) - 1 - last["store"]["from_store"]
        total = sum(last[link]["received_bytes"] for link in LINKS)
        row = {"model": self.model, "devices": self.options.devices, "workers": self.workers, "way": self.name,
               "link": self.link, "tokens": tokens, "chunk": chunk, "seconds": seconds,
               "median_seconds": statistics.median(seconds),
               "tokens_per_second": tokens / statistics.median(seconds),
               "links": {link: last[link] for link in LINKS}, "store": last["store"],
               "borders": borders, "bytes_a_border": total / borders if self.workers > 1 and borders else 0,
               "first_commit_seconds": commits[0], "last_commit_seconds": commits[-1],
               "sha256": sorted({job["sha256"] for job in jobs})}
        if self.link == "nccl":
            row["log"] = self.nccl_log(cluster)
        say(f"  {human(tokens)} tokens in chunks of {human(chunk)}: {row['median_seconds']:.3f} s of "
            f"{len(seconds)}, {row['tokens_per_second']:,.0f} tokens/s")
        return row


# ---- all of them ----


def ways_of(options, model):
    gpus = options.devices.startswith("cuda")
    for workers in options.gpus:
        if workers == 1:
            yield Way(options, model, 1, "one")
            continue
        for name in WAYS:
            if name in options.links and (gpus or name != "nccl"):
                yield Way(options, model, workers, name)


def finish(result):
    """Efficiencies, and what is not as it must be."""
    rows = result["rows"]
    one = {(row["model"], row["tokens"], row["chunk"]): row["median_seconds"]
           for row in rows if row["workers"] == 1}
    problems, outputs, borders = [], {}, {}
    for row in rows:
        alone = one.get((row["model"], row["tokens"], row["chunk"]))
        if alone:
            row["times_one"] = alone / row["median_seconds"]
            row["efficiency"] = row["times_one"] / row["workers"]
        outputs.setdefault((row["model"], row["tokens"], row["chunk"]), set()).update(row["sha256"])
        if row["bytes_a_border"]:
            borders.setdefault((row["model"], row["workers"], row["way"]), set()).add(row["bytes_a_border"])
    for (model, tokens, chunk), found in outputs.items():
        if len(found) > 1:
            problems.append(f"{model}, {tokens} tokens in chunks of {chunk}: outputs differ")
    for key, found in borders.items():
        if len(found) > 1:
            problems.append(f"{key}: bytes a border depend on chunk or length: {sorted(found)}")
    result["problems"] = problems


def print_table(result):
    print("| model | tokens | chunk | workers | way | seconds | tokens/s | x one | efficiency | bytes a border |"
          "\n|---|---|---|---|---|---|---|---|---|---|")
    for row in sorted(result["rows"], key=lambda row: (row["model"], row["tokens"], row["chunk"], row["workers"])):
        times = f"{row['times_one']:.3f} | {row['efficiency']:.1%}" if "efficiency" in row else "|"
        print(f"| {row['model']} | {human(row['tokens'])} | {human(row['chunk'])} | {row['workers']} | "
              f"{row['way']} | {row['median_seconds']:.3f} | {row['tokens_per_second']:,.0f} | {times} | "
              f"{row['bytes_a_border']:,.0f} |")


def parse():
    parser = argparse.ArgumentParser(description="One sequence over 1, 2, 4 ... GPUs",
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longwave", default=shutil.which("longwave") or SOURCE / "build" / "longwave")
    parser.add_argument("--devices", default="cuda", help="cuda, cpu or sim:layer_ms=..,layers=..")
    parser.add_argument("--count", type=int, default=0, help="devices at most (default: all GPUs, 2 others)")
    parser.add_argument("--models", type=list_of(str), default=["h3-125m", "h3-1.3b"],
                        help=f"of {', '.join(SHAPES)}; h3- may be left out")
    parser.add_argument("--tokens", type=list_of(count_of), default=[1 << 20, 4 << 20, 16 << 20])
    parser.add_argument("--chunk", type=list_of(count_of), default=[65536])
    parser.add_argument("--gpus", type=list_of(int), help="how many (default: 1, 2, 4 ... all)")
    parser.add_argument("--links", type=list_of(str), default=list(WAYS), help="of nccl, zmq, wave")
    parser.add_argument("--repeat", type=int, default=5,
                        help="jobs of the fewest tokens that are counted; in proportion fewer of longer ones")
    parser.add_argument("--limit", type=float, default=float("inf"),
                        help="seconds after which no further way is begun")
    parser.add_argument("--folder", type=pathlib.Path, help="for all files; kept (default: a new one)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("scaling"),
                        help="folder of results.json and trace.json.gz")
    options = parser.parse_args()
    options.models = [name if name in SHAPES else f"h3-{name}" for name in options.models]
    for name in options.models:
        if name not in SHAPES:
            parser.error(f"--models: \"{name.removeprefix('h3-')}\" is none of {', '.join(SHAPES)}")
    for name in options.links:
        if name not in WAYS:
            parser.error(f'--links: "{name}" is none of {", ".join(WAYS)}')
    if not options.devices.startswith(("cuda", "cpu", "sim")):
        parser.error(f'--devices: "{options.devices}" is none of cuda, cpu and sim:...')
    if options.devices == "cuda" and options.count == 0:
        options.count = len(output_of("nvidia-smi", "-L").splitlines())
        if options.count == 0:
            parser.error("no GPU here; --devices cpu or sim:... go without")
    options.count = options.count or 2
    options.gpus = options.gpus or [1 << i for i in range(options.count.bit_length())]
    return options


def main():
    options = parse()
    begin = time.monotonic()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="longwave-scaling-"))
    folder.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    command = [pathlib.Path(argument).name if "/" in argument else argument for argument in sys.argv[1:]]
    result = {**machine(), "devices": options.devices, "command": command, "rows": [], "failures": []}

    def save():
        result["took_seconds"] = time.monotonic() - begin
        finish(result)
        (options.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")

    try:
        for model in options.models:
            size = write_model(folder / "models" / model, model)
            say(f"{model}: {size / 1e6:.0f} MB; {time.monotonic() - begin:.0f} s")
            for number, way in enumerate(ways_of(options, model)):
                say(f"{way}; {time.monotonic() - begin:.0f} s")
                last = way.workers == max(options.gpus) and way.name in ("nccl", "zmq")
                traced = (last and not options.devices.startswith("sim") and
                          options.out / f"trace-{model}-{way.workers}-{way.name}.json.gz")
                try:
                    if time.monotonic() - begin > options.limit:
                        raise BenchError(f"not begun: {options.limit:.0f} s are over")
                    for row in way.run(folder / f"{model}-{number}", traced):
                        result["rows"].append(row)
                except (BenchError, OSError) as error:
                    say(f"  FAILED: {error}")
                    result["failures"].append({"way": str(way), "error": str(error)})
                save()
                shutil.rmtree(folder / f"{model}-{number}", ignore_errors=True)
            shutil.rmtree(folder / "models" / model)
    finally:
        save()
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print_table(result)
    say(f"{options.out}/results.json, {time.monotonic() - begin:.0f} s" +
        "".join(f"\n{problem}" for problem in result["problems"]) +
        "".join(f"\n{failure['way']}: {failure['error']}" for failure in result["failures"]))
    sys.exit(1 if result["problems"] or result["failures"] else 0)


if __name__ == "__main__":
    main()
