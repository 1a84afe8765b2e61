"""Workers on hosts of their own, behind links that are cut, slow and lossy; and clients that are slow."""

import re
import time
import unittest
import urllib.request

from cluster import ClusterTest, check_ledger, check_simulated, wait_for
from network import Network

CHUNK = 4096
BASES = 40 * CHUNK - 700
WORKERS = 3


class Hosts(ClusterTest):
    def setUp(self):
        super().setUp()
        self.network = Network(WORKERS + 1)
        self.addCleanup(self.network.close)
        self.addCleanup(self.end)  # before the network

    def start(self, *options):
        """The server on host 0, which only workers reach over the network, and a worker on each other."""
        server = self.server("--workers", 0, "--lease", 2, "--worker-listen",
                             f"tcp://{self.network.address(0)}:0")
        for i in range(1, WORKERS + 1):
            address = self.network.address(i)
            self.worker(server, "--link-listen", f"tcp://{address}:0", "--name", f"host-{i}",
                        "--metrics-listen", f"{address}:9000", *options,
                        inside=self.network.inside(i))
        self.all_there(server)
        return server

    def all_there(self, server):
        wait_for("the workers", lambda: len(server.json("GET", "/v1/workers")["workers"]) == WORKERS)

    def counted(self, name):
        """The sum over all workers of a counter."""
        total = 0
        for i in range(1, WORKERS + 1):
            url = f"http://{self.network.address(i)}:9000/metrics"
            with urllib.request.urlopen(url, timeout=60) as metrics:
                for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", metrics.read().decode(), re.M):
                    total += float(value)
        return int(total)

    def dna(self, server):
        bases = self.genome(BASES)
        self.wanted = self.expected(self.path("part.txt", bases), "--chunk", CHUNK)
        return server.submit(bases, chunk=CHUNK)

    def check(self, server, id):
        job = server.over(id)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(server.output(id), self.wanted)
        check_ledger(self, server, [id])
        return job["progress"]["tokens_computed"] - BASES

    def test_a_worker_is_cut_off_for_30_seconds(self):
        server = self.start("--device", "sim:layer_ms=20,layers=8")
        length = 450 * 64
        id = server.submit("A" * length, chunk=64)
        wait_for("some chunks", lambda: server.done(id) >= 20)
        self.network.cut(*((1, other) for other in (0, 2, 3)))
        began, before = time.monotonic(), server.done(id)
        wait_for("it is missed", lambda: len(server.json("GET", "/v1/workers")["workers"]) == 2)
        missed = time.monotonic() - began
        time.sleep(max(0, began + 30 - time.monotonic()))
        during = server.done(id) - before
        self.assertGreater(during, 0)
        self.network.cut()
        began = time.monotonic()
        self.all_there(server)
        back = time.monotonic() - began
        healed_at = server.done(id)
        more = server.submit("A" * (60 * 64), chunk=64)  # there is work for it
        wait_for("a chunk of the healed worker's", lambda: any(
            kind == "committed" and data["data"]["worker"] == "host-1" and
            (data["job"] == more or data["data"]["chunk"] >= healed_at)
            for job in (id, more)
            for _, kind, data in server.events(f"/v1/jobs/{job}/events?follow=0")), pause=0.5)
        for job, tokens in ((id, length), (more, 60 * 64)):
            self.assertEqual(server.over(job)["state"], "succeeded")
            check_simulated(self, server.output(job), tokens)
        check_ledger(self, server, [id, more])
        extra = server.job(id)["progress"]["tokens_computed"] - length
        self.assertLessEqual(extra, 15 * 64)
        print(f"\ncut off for 30 s: missed after {missed:.1f} s, {during} chunks by the others "
              f"meanwhile, back {back:.1f} s after the link, {extra / 64:.0f} chunks computed again, "
              f"{self.network.cut_off} packets cut off", flush=True)

    def test_a_slow_and_lossy_network(self):
        server = self.start()
        self.network.delay, self.network.loss = 0.1, 0.02
        began = time.monotonic()
        extra = self.check(server, self.dna(server))
        total = self.network.carried + self.network.lost
        self.assertGreater(self.network.lost, 0)
        print(f"\n100 ms of delay, 2 % loss: {BASES} bases in {time.monotonic() - began:.1f} s, "
              f"{self.network.lost} of {total} packets lost, {extra} tokens computed again, "
              f"{self.counted('longwave_states_from_store_total')} chunks began from the object "
              "store", flush=True)

    def test_workers_do_not_reach_each_other(self):
        server = self.start()
        self.network.cut((1, 2), (1, 3), (2, 3))
        extra = self.check(server, self.dna(server))
        stored = self.counted("longwave_states_from_store_total")
        self.assertGreater(stored, 0)
        self.assertGreater(self.network.cut_off, 0)
        print(f"\nlinks between workers cut: {stored} chunks began from the object store, {extra} "
              "tokens computed again", flush=True)

    def test_links_between_workers_come_and_go(self):
        server = self.start()
        id = self.dna(server)
        while server.running(id):
            pairs = [(a, b) for a in range(1, WORKERS + 1) for b in range(1, a)]
            self.network.cut(*self.random.sample(pairs, self.random.randrange(len(pairs) + 1)))
            time.sleep(self.random.uniform(0.1, 1))
        self.network.cut()
        print(f"\nlinks between workers come and go: {self.check(server, id)} tokens computed again",
              flush=True)


if __name__ == "__main__":
    unittest.main()
