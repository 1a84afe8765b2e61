"""A live cluster under the chart's own monitoring: two servers on PostgreSQL, three workers, Debian's Prometheus.

Every query of every dashboard's panel and of every rule gives data while a job runs, and every alert fires when what it
watches is broken, and rests when that is healed. Durations in rules and scrapes are divided by FACTOR.
"""

import json
import math
import os
import signal
import subprocess
import time
import unittest

from live import LiveTest
from monitoring import NAMESPACE, RELEASE, faster, faster_query, tools, wait_for

FACTOR = 30
CHUNK = 4096
BASES = 2_000_000
# What has no data while all is well, and why. An alert's own expression is of this kind too: it compares. Each of
# those is made to fire below.
WITHOUT_FAULT = {
    # Nobody reads a boundary while links bring the states: a worker is killed, and the next chunk starts from one.
    "longwave_boundary_read_seconds",
}


def panels():
    """(what it is, query)"""
    for path in sorted((tools.CHART / "files" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}: {target['legendFormat']}", target["expr"]


class Queries(LiveTest):
    def has_data(self, query):
        return any(not math.isnan(value) for _, value in self.prometheus.query(query))

    def still_empty(self, queries, going_on):
        """Those that have no data at the end, once all of them have, or when it does not go on."""
        while True:
            missing = [one for one in queries if not self.has_data(one[1])]
            if not missing or not going_on():
                return missing
            time.sleep(0.5)

    def test_every_query_has_data_while_a_job_runs(self):
        self.live(FACTOR)
        workers = [self.pod() for _ in range(3)]
        leader = wait_for("a leader", lambda: next((s for s in self.servers if b"longwave_leader 1\n" in
                                                    s.request("GET", "/metrics")[2]), None))
        leader.json("POST", "/v1/tokens", {"name": "ci", "days": 30}, 201)
        job = leader.submit(self.genome(BASES), chunk=CHUNK)
        wait_for("a chunk", lambda: leader.done(job) > 0)
        names = {"$namespace": NAMESPACE, "$release": RELEASE, "$job": job,
                 "$__rate_interval": faster("60s", FACTOR)}
        queries = []
        for what, query in panels():
            query = faster_query(query, FACTOR)
            for name, value in names.items():
                query = query.replace(name, value)
            self.assertNotIn("$", query)
            queries.append((what, query))
        for group in self.prometheus.groups:
            queries += [(rule["record"], rule["expr"]) for rule in group["rules"] if "record" in rule]
            queries += [(rule["record"], rule["record"]) for rule in group["rules"] if "record" in rule]
        self.assertGreater(len(queries), 80)

        waiting = [one for one in queries if not any(name in one[1] for name in WITHOUT_FAULT)]
        self.assertEqual(self.still_empty(waiting, lambda: leader.running(job)), [])
        # Now those that need a fault.
        self.gone(workers[0])
        self.pod()
        self.assertEqual(self.still_empty(queries, lambda: leader.running(job)), [])
        self.assertTrue(leader.running(job), leader.job(job))
        for config in self.prometheus.scraped:
            health = self.prometheus.query(f'up{{namespace="{NAMESPACE}",release="{RELEASE}"}}')
            self.assertEqual({value for _, value in health}, {1.0}, config["job_name"])
        pools = self.prometheus.query('count by (pool) (up{job="longwave-worker"})')
        self.assertEqual(pools, [({"pool": "cpu"}, 3.0)])


class Alerts(LiveTest):
    """One cluster, in which one thing after another breaks and is healed."""

    def fires(self, *alerts):
        wait_for(f"{alerts} to fire", lambda: set(alerts) <= self.prometheus.firing(), pause=0.2)
        self.fired |= set(alerts)

    def leader(self):
        return wait_for("a leader", lambda: next((s for s in self.servers if s.process.poll() is None and
                                                  b"longwave_leader 1\n" in s.request("GET", "/metrics")[2]), None))

    def states(self):
        return [worker["state"] for worker in self.leader().json("GET", "/v1/workers")["workers"]]

    def submit(self, tokens, **job):
        return self.leader().submit("ACGT" * (tokens // 4), **job)

    def over(self, job):
        return self.leader().over(job)

    def setUp(self):
        super().setUp()
        self.fired = set()
        # An object store that can be full.
        self.full = os.geteuid() == 0
        if self.full:
            disk = self.folder / "objects"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", disk], check=True)
            self.addCleanup(subprocess.run, ["umount", "--lazy", disk], check=True)
        self.live(FACTOR, options=("--lease", 2))

    def test_each_fires_and_rests_again(self):
        rules = [rule for group in self.prometheus.groups for rule in group["rules"]]
        alerts = {rule["alert"] for rule in rules if "alert" in rule}
        self.leader()
        wait_for("metrics", lambda: self.prometheus.value("longwave:leaders:sum") == 1)
        for breaks in (self.poison, self.no_workers, self.a_device_fails, self.workers_vanish, self.no_room,
                       self.a_pod_hangs, self.a_token_ends, self.the_leader_is_killed, self.servers_hang):
            before, began = set(self.fired), time.monotonic()
            breaks()
            print(f"\n{breaks.__name__}, {time.monotonic() - began:.0f} s: {sorted(self.fired - before)}", end="",
                  flush=True)
        wait_for("all to rest", lambda: not self.prometheus.firing(), pause=0.5, seconds=300)
        untested = set() if self.full else {"LongwaveBoundaryWritesFailing"}
        self.assertEqual(self.fired, alerts - untested)
        if untested:
            self.skipTest(f"NOT TESTED without root, who makes a small disk: {untested}; all others passed")

    def poison(self):
        """A chunk takes three workers with it, one after another."""
        job = self.submit(64, chunk=64)
        for _ in range(3):
            worker = self.pod("sim:layer_ms=60000,layers=1")
            wait_for("the chunk", lambda: self.states() == ["busy"])
            self.gone(worker)
            wait_for("its loss", lambda: self.states() == [])
        self.assertIn("lost its worker 3 times", self.over(job)["error"])
        self.fires("LongwaveJobPoisoned")

    def no_workers(self):
        job = self.submit(CHUNK * 8, chunk=CHUNK)
        self.fires("LongwaveQueueNotDraining")
        self.workers = [self.pod() for _ in range(3)]
        self.assertEqual(self.over(job)["state"], "succeeded")

    def a_device_fails(self):
        for worker in self.workers:
            self.gone(worker, signal.SIGTERM)
        worker = self.pod("sim:layer_ms=1,layers=1,fails_after=1")
        job = self.submit(64, chunk=16)
        self.assertNotEqual(worker.wait(timeout=120), 0)
        self.prometheus.remove("worker", worker.pod)
        self.fires("LongwaveDeviceFailed")
        other = self.pod("sim:layer_ms=1,layers=1")
        self.assertEqual(self.over(job)["state"], "succeeded")
        self.gone(other, signal.SIGTERM)

    def workers_vanish(self):
        jobs = [self.submit(CHUNK * 60, chunk=CHUNK) for _ in range(3)]
        for _ in range(2):
            workers = [self.pod() for _ in range(3)]
            wait_for("busy workers", lambda: self.states() == ["busy"] * 3)
            for worker in workers:
                self.gone(worker)
            wait_for("their loss", lambda: self.states() == [])
        self.fires("LongwaveLeaseLosses")
        self.workers = [self.pod() for _ in range(3)]
        for job in jobs:
            self.assertEqual(self.over(job)["state"], "succeeded")

    def no_room(self):
        if not self.full:
            return
        job = self.submit(CHUNK * 60, chunk=CHUNK)
        wait_for("a chunk", lambda: self.leader().done(job) > 0)
        ballast = self.objects / "ballast"
        with open(ballast, "wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(1 << 12))
            except OSError:
                pass
        self.fires("LongwaveBoundaryWritesFailing")
        ballast.unlink()
        self.assertEqual(self.over(job)["state"], "succeeded")

    def a_pod_hangs(self):
        self.workers[0].send_signal(signal.SIGSTOP)
        self.fires("LongwaveTargetDown")
        self.workers[0].send_signal(signal.SIGCONT)

    def a_token_ends(self):
        token = self.leader().json("POST", "/v1/tokens", {"name": "ci", "days": 3}, 201)
        self.fires("LongwaveTokenExpires")
        self.assertEqual(self.leader().request("DELETE", f"/v1/tokens/{token['id']}")[0], 204)

    def the_leader_is_killed(self):
        leader = self.leader()
        job = self.submit(CHUNK * 40, chunk=CHUNK)
        leader.kill()
        self.prometheus.remove("server", leader.name)
        self.fires("LongwaveNoLeader")
        self.assertEqual(self.over(job)["state"], "succeeded")
        leader.start()
        self.prometheus.add("server", leader.name, leader.listen)

    def servers_hang(self):
        for server in self.servers:
            server.process.send_signal(signal.SIGSTOP)
        self.fires("LongwaveNoMetrics", "LongwaveDrainSecondsAbsent")
        for server in self.servers:
            server.process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    unittest.main()
