"""Slow clients; workers and servers that are killed or frozen at random: no job is lost, the bytes stay the same,
and what is computed twice is at most the chunks in flight at each kill."""

import signal
import socket
import time
import unittest

from cluster import ClusterTest, kill, wait_for

CHUNK = 2048
BASES = 50 * CHUNK - 700


class SlowClients(ClusterTest):
    def test_who_sends_too_slowly_is_cut_off(self):
        server = self.server("--workers", 0)
        host, port = server.listen.split(":")
        begun = [b"", b"GET /heal", b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
                 b"POST /v1/files HTTP/1.1\r\nContent-Length: 9\r\n\r\nACGT"]
        clients = [socket.create_connection((host, int(port)), timeout=60) for _ in begun]
        for client, request in zip(clients, begun):
            client.sendall(request)
        self.assertEqual(server.json("GET", "/healthz"), {"status": "ok"})
        for client in clients:
            self.assertEqual(client.recv(1000), b"")
            client.close()
        self.assertEqual(server.stop(), 0)


# Leased at most, of three workers: in work, waiting for that, and done but not yet committed.
IN_FLIGHT = 15


class Faults(ClusterTest):
    def setUp(self):
        super().setUp()
        self.bases = self.genome(BASES)
        self.wanted = self.expected(self.path("part.txt", self.bases), "--chunk", CHUNK)

    def check(self, server, id, faults):
        job = server.over(id)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(server.output(id), self.wanted)
        extra = job["progress"]["tokens_computed"] - BASES
        self.assertGreaterEqual(extra, 0)
        self.assertLessEqual(extra, faults * IN_FLIGHT * CHUNK)
        self.assertGreater(faults, 0)

    def running(self, server, id):
        return server.job(id)["state"] in ("queued", "running")

    def test_workers_are_killed(self):
        server = self.server("--workers", 3, "--lease", 2)
        id = server.submit(self.bases, chunk=CHUNK)
        kills = 0
        while self.running(server, id):
            time.sleep(self.random.uniform(0.6, 1.4))
            workers = self.local_workers(server)
            if workers:
                kill(self.random.choice(workers))
                kills += 1
        self.check(server, id, kills)

    def test_the_server_is_killed(self):
        server = self.server("--workers", 1, "--lease", 3)
        for _ in range(2):
            self.worker(server)
        id = server.submit(self.bases, chunk=CHUNK)
        for done in (5, 15, 30):
            wait_for("some chunks", lambda: server.job(id)["progress"]["chunks_done"] >= done)
            time.sleep(self.random.uniform(0, 0.2))
            server.kill()
            time.sleep(self.random.uniform(0, 1))
            server.start()
        # A chunk may have been given out, and the server killed before its worker heard of it.
        self.check(server, id, 3)

    def test_both_are_killed(self):
        server = self.server("--workers", 0, "--lease", 2)
        workers = [self.worker(server) for _ in range(3)]
        id = server.submit(self.bases, chunk=CHUNK)
        faults = 0
        for done in range(4, 40, 4):
            wait_for("some chunks", lambda: server.job(id)["progress"]["chunks_done"] >= done)
            if self.random.random() < 0.4:
                server.kill()
                server.start()
            victim = self.random.randrange(3)
            workers[victim].kill()
            workers[victim] = self.worker(server)
            faults += 2
        self.check(server, id, faults)

    def test_a_frozen_worker_cannot_write(self):
        server = self.server("--workers", 0, "--lease", 1)
        frozen = self.worker(server)
        id = server.submit(self.bases, chunk=CHUNK)
        wait_for("some chunks", lambda: server.job(id)["progress"]["chunks_done"] >= 5)
        kill(frozen.pid, signal.SIGSTOP)
        self.worker(server)
        before = server.job(id)["progress"]["chunks_done"]
        wait_for("the other", lambda: server.job(id)["progress"]["chunks_done"] > before + 2)
        kill(frozen.pid, signal.SIGCONT)
        self.check(server, id, 1)

    def test_a_job_that_kills_workers_is_parked(self):
        server = self.server("--workers", 1, "--lease", 2)
        long = 1 << 17
        poison = server.submit(self.bases, chunk=long)
        for losses in range(3):
            wait_for("its chunk given out", lambda: server.job(poison)["progress"]["tokens_computed"]
                     == (losses + 1) * min(long, BASES))
            kill(wait_for("the worker", lambda: self.local_workers(server))[0])
        job = server.over(poison)
        self.assertEqual(job["state"], "failed")
        self.assertIn("chunk 0 lost its worker 3 times", job["error"])
        good = server.submit("ACGT" * 100)
        self.assertEqual(server.over(good)["state"], "succeeded")

    def test_a_damaged_boundary_is_refused(self):
        server = self.server("--workers", 0)
        worker = self.worker(server)
        id = server.submit(self.bases, chunk=CHUNK)
        wait_for("some chunks", lambda: server.job(id)["progress"]["chunks_done"] >= 3)
        worker.send_signal(signal.SIGTERM)
        worker.wait()
        done = server.job(id)["progress"]["chunks_done"]
        boundary, = (self.folder / "data/objects/jobs" / id).rglob(f"{done - 1}.boundary")
        content = bytearray(boundary.read_bytes())
        content[len(content) // 2] ^= 1
        boundary.write_bytes(content)
        self.worker(server)
        job = server.over(id)
        self.assertEqual(job["state"], "failed")
        self.assertIn("does not have its checksum", job["error"])


if __name__ == "__main__":
    unittest.main()
