"""What the tests of the cluster share: servers and workers as processes, requests to them."""

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
PATIENCE = 120  # seconds: the machine may be busy


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

    def __init__(self, folder, *options, token=None, ca=None):
        """`token`: what requests carry; `ca`: a certificate to trust, for TLS."""
        self.folder, self.options, self.token = folder, options, token
        self.tls = ca and ssl.create_default_context(cafile=ca)
        self.listen, self.worker_listen = "127.0.0.1:0", "tcp://127.0.0.1:0"
        if "--listen" in options:
            at = options.index("--listen")
            self.listen = options[at + 1]
            self.options = options[:at] + options[at + 2:]
        self.start()

    def start(self):
        with open(self.folder / "server.err", "a") as errors:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--data", self.folder / "data", "--models",
                 self.folder / "models", "--listen", self.listen, "--worker-listen",
                 self.worker_listen, *map(str, self.options)],
                stdout=subprocess.PIPE, stderr=errors, text=True)
        first, second = self.process.stdout.readline(), self.process.stdout.readline()
        assert first.startswith("listening on http"), (first, self.errors())
        self.url = first.split()[-1]
        self.listen = self.url.split("://")[1]
        self.worker_listen = second.split()[-1]

    def errors(self):
        return (self.folder / "server.err").read_text()

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

    def worker(self, server, *options):
        with open(self.folder / "worker.err", "a") as errors:
            process = subprocess.Popen(
                [PROGRAM, "worker", "--connect", server.worker_listen, "--device", "cpu",
                 "--threads", "1", *options], stderr=errors)
        self.processes.append(process)
        return process

    def local_workers(self, server):
        """The processes that the server started."""
        listed = subprocess.run(["ps", "--ppid", str(server.process.pid), "-o", "pid="],
                                stdout=subprocess.PIPE, text=True).stdout
        return [int(pid) for pid in listed.split()]

    def expected(self, source, *options):
        """The bytes that `longwave run` writes."""
        out = self.path("expected.npy")
        self.run_ok(DNA, source, "--out", out, "--quiet", *options)
        return out.read_bytes()

    def genome(self, bases):
        with gzip.open(GENOME, "rt") as lines:
            next(lines)
            letters = ""
            while len(letters) < bases:
                letters += next(lines).strip()
        return letters[:bases]


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
