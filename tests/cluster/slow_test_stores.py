"""Object stores that are full or away for a while, and clients that read slowly: each ends right or with a clear
error, and nothing is lost."""

import json
import os
import select
import socket
import subprocess
import threading
import time
import unittest

from cluster import LONG, PATIENCE, SOURCE, ClusterTest, check_ledger, wait_for

CHUNK = 4096
BASES = 40 * CHUNK - 700
AWAY = 60 if LONG else 30  # seconds; a server asks for 20
UPLOADS = 25  # at a time: more than the threads that answer other requests


class FullDisk(ClusterTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("NOT TESTED: a small disk of its own (tmpfs) needs root")
        self.disk = self.path("data")
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", self.disk], check=True)
        self.addCleanup(subprocess.run, ["umount", self.disk], check=True)
        self.addCleanup(self.end)
        self.bases = self.genome(BASES)
        self.wanted = self.expected(self.path("part.txt", self.bases), "--chunk", CHUNK)

    def fill(self):
        with open(self.disk / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(1 << 12))
            except OSError:
                pass

    def test_jobs_wait_for_room(self):
        server = self.server("--workers", 0)
        self.addCleanup(lambda: server.process.poll() is None and server.kill())
        for _ in range(2):
            self.worker(server)
        old = server.submit(self.bases, chunk=CHUNK)
        server.over(old)
        first = server.submit(self.bases, chunk=CHUNK)
        wait_for("some chunks", lambda: server.done(first) >= 5)
        self.fill()
        wait_for("a worker to see it", lambda: "No space left" in
                 (self.folder / "worker.err").read_text())
        status, headers, body = server.request("POST", "/v1/files?name=x", b"ACGT" * (1 << 20))
        self.assertEqual(status, 507)
        self.assertEqual(headers["Content-Type"], "application/problem+json")
        problem = json.loads(body)["detail"]
        self.assertEqual(problem, "the object store is full")
        time.sleep(5)
        done = server.done(first)
        self.assertTrue(server.running(first), server.job(first))
        # What is deleted makes the room that its own deletion needs.
        wait_for("a deletion", lambda: server.request("DELETE", f"/v1/jobs/{old}")[0] == 204)
        (self.disk / "ballast").unlink()
        self.assertEqual(server.over(first)["state"], "succeeded", server.job(first))
        self.assertEqual(server.output(first), self.wanted)
        check_ledger(self, server, [first])
        wait_for("a good health", lambda: server.request("GET", "/readyz")[0] == 200)
        second = server.submit(self.bases, chunk=CHUNK)
        self.assertEqual(server.over(second)["state"], "succeeded")
        self.assertEqual(server.output(second), self.wanted)
        self.assertEqual(server.stop(), 0)
        said = sorted({line.split(" warning ")[1] for line in server.errors().splitlines()
                       if " warning " in line})
        print(f"\nfull disk: {done} of 40 chunks were done; an upload said {status} {problem!r}; the "
              f"server said {said}", flush=True)


class S3:
    """Swift's S3 behind a proxy that answers 503 while `away`."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", SOURCE / "tests" / "s3" / "s3_server.py", "longwave"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.target = ("127.0.0.1", int(self.process.stdout.readline().split()[-1]))
        self.away, self.refused, self.open = False, 0, set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def environment(self):
        return {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def set_away(self, away):
        self.away = away
        if away:
            for connection in list(self.open):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client:
            try:
                if self.away:
                    self.refused += 1
                    client.recv(65536)
                    client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n"
                                   b"Connection: close\r\n\r\n")
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        pass
                    return
                self.open.add(client)
                with socket.create_connection(self.target) as server:
                    ends = {client: server, server: client}
                    while True:
                        for one in select.select(list(ends), [], [])[0]:
                            block = one.recv(1 << 18)
                            if not block:
                                return
                            ends[one].sendall(block)
            except OSError:
                pass
            finally:
                self.open.discard(client)

    def close(self):
        self.listener.close()
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE)
        self.process.stdout.close()


class AwayObjects(ClusterTest):
    def test_an_object_store_answers_503_for_a_minute(self):
        if subprocess.run(["/usr/bin/python3", "-c", "import swift"],
                          capture_output=True).returncode != 0:
            self.skipTest("NOT TESTED: there is no python3-swift")
        s3 = S3()
        self.addCleanup(s3.close)
        os.environ.update(s3.environment())
        self.addCleanup(lambda: [os.environ.pop(name) for name in s3.environment()])
        bases = self.genome(BASES)
        wanted = self.expected(self.path("part.txt", bases), "--chunk", CHUNK)
        server = self.server("--workers", 0, "--objects", "s3://longwave/cluster")
        for _ in range(2):
            self.worker(server)
        id = server.submit(bases, chunk=CHUNK)
        wait_for("some chunks", lambda: server.done(id) >= 5)
        s3.set_away(True)
        began, before = time.monotonic(), server.done(id)
        answers = []
        clients = [threading.Thread(target=lambda: answers.append(
            server.request("POST", "/v1/files?name=x", b"ACGT" * 100))) for _ in range(UPLOADS)]
        for client in clients:
            client.start()
        # What does not need the store is answered while uploads wait for it.
        self.assertEqual(server.json("GET", "/v1/jobs")["jobs"][0]["id"], id)
        self.assertEqual(answers, [])
        time.sleep(AWAY)
        during = server.done(id) - before
        s3.set_away(False)
        healed = time.monotonic()
        job = server.over(id)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(server.output(id), wanted)
        check_ledger(self, server, [id])
        self.assertGreater(s3.refused, 0)
        for client in clients:
            client.join()
        self.assertEqual(len(answers), UPLOADS)
        for status, headers, body in answers:
            self.assertEqual(status, 503, body)
            self.assertEqual(headers["Content-Type"], "application/problem+json")
            self.assertEqual(headers["Retry-After"], "5")
        server.upload(b"ACGT" * 100, "x")
        print(f"\nobject store away for {AWAY} s: {s3.refused} requests refused, {during} chunks "
              f"committed meanwhile, the job over {time.monotonic() - healed:.1f} s after, "
              f"{job['progress']['tokens_computed'] - BASES} tokens computed again; uploads "
              f"meanwhile: {status}", flush=True)


class SlowReader(ClusterTest):
    def test_an_output_is_read_at_a_few_kilobytes_a_second(self):
        server = self.server("--workers", 0, "--request-timeout", "12")
        self.worker(server, "--device", "sim:layer_ms=0,layers=1")
        length = 1 << 20
        id = server.submit("A" * length, chunk=1 << 16)
        self.assertEqual(server.over(id)["state"], "succeeded")
        wanted = server.output(id)
        host, port = server.listen.split(":")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(PATIENCE)
            slow.connect((host, int(port)))
            slow.sendall(f"GET /v1/jobs/{id}/output HTTP/1.1\r\nHost: x\r\n"
                         "Connection: close\r\n\r\n".encode())
            answer, began = b"", time.monotonic()
            while time.monotonic() < began + 24:
                answer += slow.recv(1024)
                time.sleep(0.25)
                self.assertTrue(server.running(id) is False)  # others are served meanwhile
            slowly = len(answer)
            while block := slow.recv(1 << 16):
                answer += block
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertIn(b" 200 ", head.split(b"\r\n")[0])
        self.assertEqual(body, wanted)
        print(f"\nslow reader: {slowly} bytes in 24 s, then the rest of {len(wanted)}", flush=True)


if __name__ == "__main__":
    unittest.main()
