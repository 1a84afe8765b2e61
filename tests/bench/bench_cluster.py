"""A server and its workers as processes, for benches that have nothing but the standard library of Python 3."""

import hashlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE = 60  # seconds, for anything but a job
COUNTERS = {"received_bytes": "longwave_state_received_bytes_total",
            "waits": "longwave_state_latency_seconds_count",
            "wait_seconds": "longwave_state_latency_seconds_sum"}
LINKS = ("process", "zmq", "nccl")
STORE = {"from_store": "longwave_states_from_store_total",
         "outputs": "longwave_output_write_seconds_count",
         "output_seconds": "longwave_output_write_seconds_sum",
         "boundaries": "longwave_boundary_write_seconds_count",
         "boundary_seconds": "longwave_boundary_write_seconds_sum"}


class BenchError(Exception):
    pass


class Cluster:
    """Standard errors are files of `folder`, a new one. `workers`: the options of each process; together
    they are `count` workers."""

    def __init__(self, longwave, folder, models, workers, count):
        self.processes, self.folder = {}, folder
        folder.mkdir()
        try:
            server = self.start("server", longwave, "serve", "--data", folder / "data", "--models", models,
                                "--workers", "0", "--listen", "127.0.0.1:0", "--worker-listen",
                                "tcp://127.0.0.1:0", stdout=subprocess.PIPE, text=True)
            self.url = server.stdout.readline().split()[-1]
            connect = server.stdout.readline().split()[-1]
            self.workers = [f"worker-{i}" for i in range(len(workers))]
            for name, options in zip(self.workers, workers):
                self.start(name, longwave, "worker", "--connect", connect, "--name", name,
                           "--metrics-listen", "127.0.0.1:0", *options)
            self.wait("workers", lambda: len(self.json("/v1/workers")["workers"]) == count)
            self.metrics = [self.wait(f"metrics of {name}", lambda: re.search(
                r"metrics.*url=(\S+)", self.errors(name))).group(1) for name in self.workers]
        except BaseException as error:
            self.stop()
            if isinstance(error, IndexError):
                raise BenchError(f"the server did not start: {self.errors('server')[-500:]}") from None
            raise

    def start(self, name, *command, **options):
        with open(self.folder / f"{name}.err", "w") as errors:
            process = subprocess.Popen([str(part) for part in command], stderr=errors, **options)
        self.processes[name] = process
        return process

    def errors(self, name):
        return (self.folder / f"{name}.err").read_text()

    def stop(self):
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in reversed(self.processes.values()):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait(self, what, condition, seconds=PATIENCE, pause=0.01):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise BenchError(f"{what}: {name} ended with {process.returncode}: "
                                     f"{self.errors(name)[-500:]}")
            value = condition()
            if value:
                return value
            time.sleep(pause)
        raise BenchError(f"{what}: not within {seconds:.0f} s")

    def request(self, path, body=None):
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body),
                                        timeout=PATIENCE) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise BenchError(f"{path}: {error.code} {error.read().decode()[:500]}") from None

    def json(self, path, value=None):
        return json.loads(self.request(path, None if value is None else json.dumps(value).encode()))

    def upload(self, content, name):
        return json.loads(self.request(f"/v1/files?name={name}", content))["id"]

    def counters(self):
        """{link, or "store": {counter: of all workers, since they started}}"""
        names = {link: {key: f'{name}{{link="{link}"}}' for key, name in COUNTERS.items()} for link in LINKS}
        names["store"] = STORE
        total = {part: dict.fromkeys(keys, 0) for part, keys in names.items()}
        for url in self.metrics:
            with urllib.request.urlopen(url + "/metrics", timeout=PATIENCE) as answer:
                lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines()]
            values = {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0][0] != "#"}
            for part, keys in names.items():
                for key, name in keys.items():
                    total[part][key] += values.get(name, 0)
        return total

    def run(self, seconds, **job):
        """A job, to its end. {id, seconds by the server's clock, sha256 of the output, and the counters'
        growth}"""
        before = self.counters()
        id = self.json("/v1/jobs", job)["id"]
        ended = self.wait(f"job {id}", lambda: (
            lambda job: job if job["state"] not in ("queued", "running") else None)(
                self.json(f"/v1/jobs/{id}")), seconds, 0.05)
        if ended["state"] != "succeeded":
            raise BenchError(f"job {id} {ended['state']}: {ended.get('error')}")
        after = self.counters()
        output = self.request(f"/v1/jobs/{id}/output")
        return {"id": id, "seconds": (ended["finished_ms"] - ended["started_ms"]) / 1000,
                "sha256": hashlib.sha256(output).hexdigest(),
                **{part: {key: after[part][key] - before[part][key] for key in after[part]}
                   for part in after}}

    def commits(self, id):
        """Seconds after the job's start at which its chunks were committed, in order."""
        job = self.json(f"/v1/jobs/{id}")
        found = []
        for block in self.request(f"/v1/jobs/{id}/events").decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if lines.get("event") == "committed":
                found.append((json.loads(lines["data"])["at_ms"] - job["started_ms"]) / 1000)
        return found
