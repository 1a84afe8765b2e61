"""Workers and servers that are killed or frozen at random: no job is lost, the bytes stay the same, no chunk is
committed twice, and what is computed twice is at most the chunks in flight at each kill.

LONGWAVE_LONG=1: over the whole genome, in chunks of 65536."""

import signal
import threading
import time
import unittest

from cluster import LONG, ClusterTest, check_ledger, check_simulated, kill, wait_for

CHUNK = 65536 if LONG else 8192
BASES = 1 << 40 if LONG else 600_000 - 700
WORKERS = 3
# A worker computes one chunk, has one waiting, and may have results that wait for their turn.
MOST_IN_FLIGHT = WORKERS * 5
PAUSE = 2 if LONG else 1  # seconds between kills, on average


class Watch:
    """The most chunks of a job that were leased at one time, and when it was over."""

    def __init__(self, server, id):
        self.most, self.over, self.server, self.id = 0, False, server, id
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.over:
            try:
                job = self.server.job(self.id)
                states = job["progress"].get("chunk_states", {})
                self.most = max(self.most, states.get("leased", 0))
                self.over = job["state"] not in ("queued", "running")
            except (OSError, AssertionError, ValueError):
                pass  # the server was killed
            time.sleep(0.05)


class Kills(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.wanted = None

    def setUp(self):
        super().setUp()
        self.bases = self.genome(BASES)
        if Kills.wanted is None:
            Kills.wanted = self.expected(self.path("part.txt", self.bases), "--chunk", CHUNK)
        self.started = time.monotonic()

    def submit(self, server):
        id = server.submit(self.bases, chunk=CHUNK)
        self.watch = Watch(server, id)
        self.addCleanup(setattr, self.watch, "over", True)
        return id

    def wait_for_progress(self, server, id, done):
        """On a machine so busy that no chunk is computed between two kills there would be no end."""
        wait_for("a chunk", lambda: server.done(id) > done or not server.running(id))

    def check(self, server, id, faults):
        """What the job says, against how many workers and servers were lost."""
        job = server.over(id)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(server.output(id), self.wanted)
        events = check_ledger(self, server, [id])
        extra = job["progress"]["tokens_computed"] - len(self.bases)
        print(f"\n{self.id().split('.')[-1]}: {len(self.bases)} bases, {-(-len(self.bases) // CHUNK)} "
              f"chunks in {time.monotonic() - self.started:.1f} s, {faults} kills, "
              f"{sum(kind == 'lost' for _, kind, _ in events)} chunks lost, at most {self.watch.most} "
              f"in flight, {extra} tokens ({extra / CHUNK:.1f} chunks) computed again", flush=True)
        self.assertGreaterEqual(extra, 0)
        self.assertLessEqual(self.watch.most, MOST_IN_FLIGHT)
        self.assertLessEqual(extra, faults * MOST_IN_FLIGHT * CHUNK)

    def test_undisturbed(self):
        server = self.server("--workers", WORKERS)
        id = self.submit(server)
        self.check(server, id, 0)

    def test_workers_are_killed(self):
        server = self.server("--workers", WORKERS, "--lease", 2)
        id = self.submit(server)
        kills = 0
        while server.running(id):
            done = server.done(id)
            time.sleep(self.random.uniform(0.6, 1.4) * PAUSE)
            self.wait_for_progress(server, id, done)
            workers = self.local_workers(server)
            if workers and server.running(id):
                kill(self.random.choice(workers))
                kills += 1
        self.assertGreater(kills, 3)
        self.check(server, id, kills)

    def test_the_server_is_killed(self):
        server = self.server("--workers", 1, "--lease", 3)
        for _ in range(WORKERS - 1):
            self.worker(server)
        id = self.submit(server)
        chunks = -(-len(self.bases) // CHUNK)
        for done in (chunks // 10, chunks // 3, chunks * 2 // 3):
            wait_for("some chunks", lambda: server.done(id) >= done)
            time.sleep(self.random.uniform(0, 0.2))
            server.kill()
            time.sleep(self.random.uniform(0, 1))
            server.start()
        # Its own worker ends with it, and chunks may have been given out of which no worker heard.
        self.check(server, id, 3)

    def test_both_are_killed(self):
        server = self.server("--workers", 0, "--lease", 2)
        workers = [self.worker(server) for _ in range(WORKERS)]
        id = self.submit(server)
        chunks, servers, kills = -(-len(self.bases) // CHUNK), 0, 0
        while server.running(id):
            if server.done(id) >= chunks * (servers + 1) // 4 and servers < 3:
                server.kill()
                server.start()
                servers += 1
            done, victim = server.done(id), self.random.randrange(WORKERS)
            workers[victim] = self.replaced(workers[victim], server)
            kills += 1
            time.sleep(self.random.uniform(0.6, 1.4) * 2 * PAUSE)
            self.wait_for_progress(server, id, done)
        self.assertEqual(servers, 3)
        self.check(server, id, kills + servers)


class Many(ClusterTest):
    """Two hundred kills, over many small jobs and simulated devices that check every state."""
    KILLS, WORKERS, CHUNK = 200, 6, 64

    def test_two_hundred_kills(self):
        server = self.server("--workers", 0, "--lease", 1)
        sim = ("--device", "sim:layer_ms=2,layers=8")
        workers = [self.worker(server, *sim) for _ in range(self.WORKERS)]
        lengths, unfinished, kills, began = {}, [], 0, time.monotonic()
        next_kill = began + 0.3
        while kills < self.KILLS or any(map(server.running, unfinished)):
            if kills < self.KILLS:
                unfinished = [id for id in list(lengths)[-12:] if server.running(id)]
                while len(unfinished) < 8:
                    length = self.random.randrange(1, 30 * self.CHUNK)
                    unfinished.append(server.submit("A" * length, chunk=self.CHUNK))
                    lengths[unfinished[-1]] = length
                if time.monotonic() >= next_kill:
                    victim = self.random.randrange(self.WORKERS)
                    workers[victim] = self.replaced(workers[victim], server, *sim)
                    kills += 1
                    next_kill = time.monotonic() + self.random.uniform(0.1, 0.5)
            else:
                unfinished = [id for id in lengths if server.running(id)]
            time.sleep(0.02)
            self.assertLess(time.monotonic(), began + 500)
        extra = 0
        for id, length in lengths.items():
            job = server.over(id)
            self.assertEqual(job["state"], "succeeded", job)
            check_simulated(self, server.output(id), length)
            extra += job["progress"]["tokens_computed"] - length
        events = check_ledger(self, server, list(lengths))
        chunks = sum(-(-length // self.CHUNK) for length in lengths.values())
        print(f"\n{kills} kills in {time.monotonic() - began:.0f} s: {len(lengths)} jobs of {chunks} "
              f"chunks, {sum(kind == 'lost' for _, kind, _ in events)} chunks lost, {extra} of "
              f"{sum(lengths.values())} tokens computed again", flush=True)
        self.assertLessEqual(extra, kills * self.WORKERS * 5 * self.CHUNK)


class Faults(ClusterTest):
    CHUNK, BASES = 2048, 50 * 2048 - 700

    def setUp(self):
        super().setUp()
        self.bases = self.genome(self.BASES)

    def test_a_frozen_worker_cannot_write(self):
        server = self.server("--workers", 0, "--lease", 1)
        frozen = self.worker(server)
        id = server.submit(self.bases, chunk=self.CHUNK)
        wait_for("some chunks", lambda: server.done(id) >= 5)
        kill(frozen.pid, signal.SIGSTOP)
        self.worker(server)
        before = server.done(id)
        wait_for("the other", lambda: server.done(id) > before + 2)
        kill(frozen.pid, signal.SIGCONT)
        job = server.over(id)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(server.output(id), self.expected(self.path("part.txt", self.bases),
                                                          "--chunk", self.CHUNK))
        # The other too may be missed, where the machine is so busy that it says nothing for a second.
        lost = sum(kind == "lost" for _, kind, _ in check_ledger(self, server, [id]))
        self.assertGreaterEqual(lost, 1)
        extra = job["progress"]["tokens_computed"] - self.BASES
        self.assertLessEqual(extra, lost * 2 * 5 * self.CHUNK)

    def test_a_job_that_kills_workers_is_parked(self):
        server = self.server("--workers", 1, "--lease", 2)
        long = 1 << 17
        poison = server.submit(self.bases, chunk=long)
        for losses in range(3):
            wait_for("its chunk given out", lambda: server.job(poison)["progress"]["tokens_computed"]
                     == (losses + 1) * min(long, self.BASES))
            kill(wait_for("the worker", lambda: self.local_workers(server))[0])
        job = server.over(poison)
        self.assertEqual(job["state"], "failed")
        self.assertIn("chunk 0 lost its worker 3 times", job["error"])
        good = server.submit("ACGT" * 100)
        self.assertEqual(server.over(good)["state"], "succeeded")

    def test_a_damaged_boundary_is_refused(self):
        server = self.server("--workers", 0)
        worker = self.worker(server)
        id = server.submit(self.bases, chunk=self.CHUNK)
        wait_for("some chunks", lambda: server.done(id) >= 3)
        worker.send_signal(signal.SIGTERM)
        worker.wait()
        done = server.done(id)
        boundary, = (self.folder / "data/objects/jobs" / id).rglob(f"{done - 1}.boundary")
        content = bytearray(boundary.read_bytes())
        content[len(content) // 2] ^= 1
        boundary.write_bytes(content)
        self.worker(server)
        job = server.over(id)
        self.assertEqual(job["state"], "failed")
        self.assertIn("its SHA-256 is", job["error"])


if __name__ == "__main__":
    unittest.main()
