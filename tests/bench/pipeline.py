#!/usr/bin/env python3
"""How near to ideal many workers compute one sequence, and what the scheduler's share costs: with simulated devices,
which sleep instead of computing, over real sockets, databases and object stores.

    ./dev bench pipeline [--json OUT] [--layer-ms 1,2,5,10] [--workers 64] [--seconds 5] [--processes 4]

One sequence of workers x rounds chunks, as many rounds as take --seconds, 20 at least. Ideal: every worker computes all
the time, chunks x layers x layer_ms / workers. `wave` is the baseline: each layer's state goes on when the whole layer is computed.

Then: 256 workers, 10,000 chunks of one sequence, the processor time of the whole server process for each, and what
its scheduler's thread measured itself; and 64 workers with as many chunks of 100 sequences. (There everybody is soon
connected to everybody: 256 in one process would need more sockets than it may have.)

Outputs are checked. Standard library alone."""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "cluster"))
from cluster import SOURCE, ClusterTest, check_ledger, check_simulated, wait_for  # noqa: E402

LAYERS = 24
TOKENS = 16  # of a chunk
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Bench(ClusterTest):
    def runTest(self):
        pass

    def cluster(self, workers, processes, device):
        """The server, and functions that tell the processor time of it and of the workers."""
        server = self.server("--workers", 0, "--lease", 30)
        shares = [workers // processes + (i < workers % processes) for i in range(processes)]
        started = [self.worker(server, "--device", device, "--count", str(share)) for share in shares]
        wait_for("the workers",
                 lambda: len(server.json("GET", "/v1/workers")["workers"]) == workers)
        return (server, lambda: cpu_seconds(server.process.pid),
                lambda: sum(cpu_seconds(worker.pid) for worker in started))

    def dispatched(self, server):
        """ms of the scheduler's thread for a chunk, and how many chunks those were"""
        metrics = server.request("GET", "/metrics")[2].decode()
        value = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines()
                 if line.startswith("longwave_dispatch_seconds_") and "bucket" not in line}
        count = value["longwave_dispatch_seconds_count"]
        return 1000 * value["longwave_dispatch_seconds_sum"] / count, int(count)

    def pipeline(self, workers, processes, rounds, layer_ms, wave=False):
        server, server_cpu, worker_cpu = self.cluster(
            workers, processes, f"sim:layer_ms={layer_ms},layers={LAYERS},wave={int(wave)}")
        warm = server.submit("A" * TOKENS * workers, chunk=TOKENS)  # connections between workers
        self.assertEqual(server.over(warm)["state"], "succeeded")
        chunks = workers * rounds
        before = server_cpu(), worker_cpu()
        id = server.submit("A" * TOKENS * chunks, chunk=TOKENS)
        time.sleep(chunks * LAYERS * layer_ms / 1000 / workers)  # no questions meanwhile
        job = server.over(id)
        after = server_cpu(), worker_cpu()
        self.assertEqual(job["state"], "succeeded", job)
        check_simulated(self, server.output(id), TOKENS * chunks)
        events = check_ledger(self, server, [id])
        times = [data["at_ms"] for _, kind, data in events if kind in ("started", "committed")]
        seconds = (times[-1] - times[0]) / 1000
        first = (times[1] - times[0]) / 1000
        fill = (times[workers] - times[1]) / 1000  # the first round's commits
        ideal = chunks * LAYERS * layer_ms / 1000 / workers
        row = {"workers": workers, "processes": processes, "layers": LAYERS, "layer_ms": layer_ms,
               "chunks": chunks,
               "wave": wave, "seconds": seconds, "ideal_seconds": ideal,
               "efficiency": ideal / seconds, "tokens_per_second": TOKENS * chunks / seconds,
               "first_chunk_seconds": first, "first_round_seconds": fill,
               "scheduler_ms_per_chunk": self.dispatched(server)[0],
               "server_cpu_seconds": after[0] - before[0], "worker_cpu_seconds": after[1] - before[1]}
        print(f"{workers} workers, {LAYERS} layers of {layer_ms:g} ms, {chunks} chunks"
              f"{', wavefront' if wave else ''}: {seconds:.2f} s of {ideal:.2f} s ideal: "
              f"{100 * row['efficiency']:.1f} %; {row['tokens_per_second']:.0f} tokens/s; first "
              f"chunk {first:.3f} s, the first round's others {fill:.3f} s more; processors "
              f"{(row['server_cpu_seconds'] + row['worker_cpu_seconds']) / seconds:.2f}; scheduler "
              f"{row['scheduler_ms_per_chunk']:.3f} ms a chunk", flush=True)
        return row

    def dispatch(self, workers, processes, jobs, chunks):
        server, server_cpu, _ = self.cluster(workers, processes, "sim:layer_ms=100,layers=4,state_bytes=512")
        before = server_cpu()
        began = time.monotonic()
        ids = [server.submit("A" * TOKENS * chunks, chunk=TOKENS) for _ in range(jobs)]
        for id in ids:
            self.assertEqual(server.over(id)["state"], "succeeded")
        seconds = time.monotonic() - began
        cpu = server_cpu() - before
        own, dispatched = self.dispatched(server)
        for id in ids:
            check_simulated(self, server.output(id), TOKENS * chunks)
        check_ledger(self, server, ids)
        total = jobs * chunks
        row = {"workers": workers, "jobs": jobs, "chunks": total, "seconds": seconds,
               "chunks_per_second": total / seconds, "server_cpu_ms_per_chunk": 1000 * cpu / total,
               "scheduler_ms_per_chunk": own, "dispatched": dispatched}
        print(f"{workers} workers, {jobs} jobs of {chunks} chunks: {total} chunks in {seconds:.1f} s; "
              f"server process {row['server_cpu_ms_per_chunk']:.3f} ms of processor time a chunk, its "
              f"scheduler's thread {row['scheduler_ms_per_chunk']:.3f} ms of wall time", flush=True)
        return row


def run(method, *arguments, **options):
    """In a folder and cluster of its own."""
    rows = []
    case = Bench()
    case.runTest = lambda: rows.append(getattr(case, method)(*arguments, **options))
    result = unittest.TestResult()
    case.run(result)
    if not result.wasSuccessful():
        sys.exit("\n".join(text for _, text in result.errors + result.failures))
    return rows[0]


def machine():
    model = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line]
    git = ["git", "-C", str(SOURCE)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changes = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"],
                             capture_output=True, text=True).stdout.strip()
    about = {"commit": commit, "changes": bool(changes)}
    if (SOURCE / "bundle.json").exists():
        about = {key: json.loads((SOURCE / "bundle.json").read_text())[key] for key in about}
    return {"kind": "pipeline", **about,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            "device": {"name": model[0] if model else platform.processor(),
                       "cores": os.cpu_count(), "kernel": platform.release().split("-")[0]},
            "load_before": os.getloadavg()[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--layer-ms", default="1,2,4,5,6,8,10,20")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 1) // 8),
                        help="that the workers are in (default: one for eight processors)")
    parser.add_argument("--seconds", type=float, default=5, help="that a sequence takes, ideally")
    parser.add_argument("--no-wave", action="store_true", help="leave out the wavefront")
    parser.add_argument("--chunks", type=int, default=10000, help="to dispatch; 0: none")
    options = parser.parse_args()
    result = machine()
    times = [float(part) for part in options.layer_ms.split(",") if part]
    result["pipeline"] = []
    size = options.workers, min(options.processes, options.workers)
    for ms in times:
        rounds = max(20, round(options.seconds / (LAYERS * ms / 1000)))
        result["pipeline"].append(run("pipeline", *size, rounds, ms))
    if times and not options.no_wave:
        result["pipeline"].append(run("pipeline", *size, 4, times[-1], wave=True))
    if options.chunks > 0:
        result["dispatch"] = [run("dispatch", 256, options.processes, 1, options.chunks),
                              run("dispatch", 64, options.processes, 100, options.chunks // 100)]
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
