"""What the tests of the cluster share: servers and workers as processes, requests to them."""

import array
import gzip
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "cli"))
from support import DNA, IDS, PROGRAM, SOURCE, TEXT, CliTest  # noqa: E402,F401

GENOME = SOURCE / "examples" / "ecoli536.fna.gz"
LONG = os.environ.get("LONGWAVE_LONG") == "1"  # the whole genome, and faults of full length
PATIENCE = 1800 if LONG else 120  # seconds: the machine may be busy


def wait_for(what, condition, seconds=PATIENCE, pause=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds} s")


class Server:
    """`longwave serve`, which may be killed and started again at the same addresses."""

    def __init__(self, folder, *options, token=None, ca=None, name="server"):
        """`token`: what requests carry; `ca`: a certificate to trust, for TLS; `name`: of several
        servers in one folder."""
        self.folder, self.options, self.token = folder, options, token
        self.name = name
        self.tls = ca and ssl.create_default_context(cafile=ca)
        self.listen, self.worker_listen = "127.0.0.1:0", "tcp://127.0.0.1:0"
        for option, name in (("--listen", "listen"), ("--worker-listen", "worker_listen")):
            if option in self.options:
                at = self.options.index(option)
                setattr(self, name, self.options[at + 1])
                self.options = self.options[:at] + self.options[at + 2:]
        self.start()

    def start(self):
        data = "data" if self.name == "server" else f"data-{self.name}"
        with open(self.folder / f"{self.name}.err", "a") as errors:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--data", self.folder / data, "--models",
                 self.folder / "models", "--listen", self.listen, "--worker-listen",
                 self.worker_listen, *map(str, self.options)],
                stdout=subprocess.PIPE, stderr=errors, text=True)
        first, second = self.process.stdout.readline(), self.process.stdout.readline()
        assert first.startswith("listening on http"), (first, self.errors())
        self.url = first.split()[-1]
        self.listen = self.url.split("://")[1]
        self.worker_listen = second.split()[-1]

    def errors(self):
        return (self.folder / f"{self.name}.err").read_text()

    def kill(self):
        self.process.kill()
        self.close()

    def stop(self):
        self.process.terminate()
        self.close()
        return self.process.returncode

    def close(self):
        self.process.wait(timeout=PATIENCE)
        self.process.stdout.close()

    def connect(self):
        if self.tls:
            return http.client.HTTPSConnection(self.listen, timeout=PATIENCE, context=self.tls)
        return http.client.HTTPConnection(self.listen, timeout=PATIENCE)

    def request(self, method, target, body=None, headers=None):
        """(status, headers, bytes)"""
        connection = self.connect()
        headers = dict(headers or {})
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def json(self, method, target, value=None, status=200, headers=None):
        body = None if value is None else json.dumps(value)
        got, _, answer = self.request(method, target, body, headers)
        assert got == status, (got, answer)
        return json.loads(answer)

    def upload(self, content, name):
        query = urllib.parse.urlencode({"name": name})
        got, _, answer = self.request("POST", f"/v1/files?{query}", content)
        assert got == 201, answer
        return json.loads(answer)["id"]

    def submit(self, content, name="input.txt", **job):
        job.setdefault("model", "h3-dna")
        job["input"] = self.upload(content, name)
        return self.json("POST", "/v1/jobs", job, 201)["id"]

    def job(self, id):
        return self.json("GET", f"/v1/jobs/{id}")

    def done(self, id):
        return self.job(id)["progress"].get("chunks_done", 0)

    def running(self, id):
        return self.job(id)["state"] in ("queued", "running")

    def events(self, target, **headers):
        """(number, kind, data) of the events of a stream that ends."""
        status, sent, body = self.request("GET", target, headers=headers)
        assert (status, sent["Content-Type"]) == (200, "text/event-stream"), (status, body)
        events = []
        for block in body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] not in ":")
            if lines:
                events.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
        return events

    def over(self, id):
        return wait_for(f"the end of job {id}", lambda: (
            lambda job: job if job["state"] not in ("queued", "running") else None)(self.job(id)))

    def output(self, id):
        status, _, content = self.request("GET", f"/v1/jobs/{id}/output")
        assert status == 200, content
        return content


class Refusals:
    """For tests that have a Server as self.api."""

    def refused(self, status, said, method, target, body=None, **headers):
        got, sent, answer = self.api.request(method, target, body, headers)
        self.assertEqual(got, status, answer)
        self.assertEqual(sent["Content-Type"], "application/problem+json")
        problem = json.loads(answer)
        self.assertEqual(problem["status"], status)
        self.assertIn(said, problem["detail"])
        return sent

    def raw(self, *pieces, pause=0):
        """All of the answer to bytes that are sent one after another, as they are."""
        host, port = self.api.listen.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while block := connection.recv(65536):
                answer += block
        return answer


class ClusterTest(CliTest):
    def setUp(self):
        super().setUp()
        models = self.path("models")
        models.mkdir()
        for model in (DNA, TEXT, IDS, SOURCE / "tests" / "golden" / "s4d"):
            (models / model.name).symlink_to(model)
        self.processes = []
        self.addCleanup(self.end)
        self.random = random.Random(0)

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def server(self, *options, **more):
        server = Server(self.folder, *options, **more)
        self.addCleanup(lambda: server.process.poll() is None and server.kill())
        return server

    def worker(self, server, *options, connect=None, inside=(), log=None):
        if "--device" not in options:
            options = ("--device", "cpu", *options)
        with open(log or self.folder / "worker.err", "a") as errors:
            process = subprocess.Popen(
                [*inside, PROGRAM, "worker", "--connect", connect or server.worker_listen,
                 "--threads", "1", *options], stderr=errors)
        self.processes.append(process)
        return process

    def replaced(self, worker, server, *options):
        """Another worker, after this one was killed: it must not have ended before."""
        worker.kill()
        self.assertEqual(worker.wait(), -signal.SIGKILL, self.path("worker.err").read_text())
        return self.worker(server, *options)

    def local_workers(self, server):
        """The processes that the server started."""
        listed = subprocess.run(["ps", "--ppid", str(server.process.pid), "-o", "pid="],
                                stdout=subprocess.PIPE, text=True).stdout
        return [int(pid) for pid in listed.split()]

    def expected(self, source, *options):
        """The bytes that `longwave run` writes."""
        out = self.path("expected.npy")
        self.run_ok(DNA, source, "--out", out, "--quiet", *options, timeout=max(PATIENCE, 300))
        return out.read_bytes()

    def genome(self, bases):
        with gzip.open(GENOME, "rt") as lines:
            next(lines)
            letters, count = [], 0
            while count < bases and (line := next(lines, "").strip()):
                letters.append(line)
                count += len(line)
        return "".join(letters)[:bases]


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def check_ledger(test, server, ids):
    """Each chunk of these jobs, which succeeded, was committed once and in order; no more events.
    Returns all events of these jobs."""
    found = []
    for id in ids:
        events = server.events(f"/v1/jobs/{id}/events?follow=0")
        chunks = server.job(id)["progress"]["chunks"]
        committed = [data["data"]["chunk"] for _, kind, data in events if kind == "committed"]
        test.assertEqual(committed, list(range(chunks)), id)
        test.assertEqual([kind for _, kind, _ in events].count("succeeded"), 1, id)
        found += events
    return found


def check_simulated(test, output, length):
    """The .npy of simulated devices: each token's position."""
    values = array.array("f")
    values.frombytes(output[128:])
    test.assertEqual(values, array.array("f", range(length)))
