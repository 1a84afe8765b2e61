"""Two servers on one PostgreSQL: the one that leads is killed, frozen, ended, or loses its database. The other
takes over, workers find it, and what a server writes that led before is refused.

LONGWAVE_LONG=1: over the whole genome, in chunks of 65536."""

import re
import signal
import time
import unittest

from cluster import LONG, ClusterTest, check_ledger, check_simulated, wait_for
from postgres import Postgres

CHUNK = 65536 if LONG else 2048
BASES = 1 << 40 if LONG else 60 * CHUNK - 700
WORKERS = 3


class Takeover(ClusterTest):
    wanted = None  # what `longwave run` gives

    def setUp(self):
        super().setUp()
        self.postgres = Postgres()
        self.addCleanup(self.postgres.close)
        objects = f"file://{self.path('objects')}"
        self.servers = [
            self.server("--workers", 0, "--store", self.postgres.uri, "--objects", objects,
                        "--lease", 3, name=name) for name in ("first", "second")]
        self.leader = wait_for("a leader", self.leads)
        self.other, = (server for server in self.servers if server is not self.leader)
        self.bases = self.genome(BASES)
        if Takeover.wanted is None:
            Takeover.wanted = self.expected(self.path("part.txt", self.bases), "--chunk", CHUNK)

    def row(self):
        """(term, worker endpoint) of who leads."""
        (term, endpoint), = self.postgres.query("SELECT term, endpoint FROM leadership")
        return int(term), endpoint

    def leads(self):
        _, endpoint = self.row()
        return next((s for s in self.servers if s.worker_listen == endpoint), None)

    def start_job(self, done=8):
        both = ",".join(server.worker_listen for server in self.servers)
        for _ in range(WORKERS):
            self.worker(self.leader, connect=both)
        id = self.leader.submit(self.bases, chunk=CHUNK)
        wait_for("some chunks", lambda: self.other.done(id) >= done)
        return id

    def taken_over(self, since, term):
        """Seconds until the other leads, and until it committed a chunk."""
        wait_for("the other leads", lambda: self.row() == (term + 1, self.other.worker_listen))
        return time.monotonic() - since

    def check(self, server, id, most_losses):
        job = server.over(id)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(server.output(id), self.wanted)
        check_ledger(self, server, [id])
        extra = job["progress"]["tokens_computed"] - len(self.bases)
        self.assertLessEqual(extra, most_losses * WORKERS * 5 * CHUNK)
        return extra

    def test_the_leader_is_killed(self):
        id = self.start_job()
        term, _ = self.row()
        self.leader.kill()
        since, before = time.monotonic(), self.other.done(id)
        leads = self.taken_over(since, term)
        wait_for("a chunk", lambda: self.other.done(id) > before)
        goes_on = time.monotonic() - since
        extra = self.check(self.other, id, 1)
        print(f"\nleader killed: the other led after {leads:.1f} s, the next chunk was committed "
              f"after {goes_on:.1f} s, {extra} tokens computed again", flush=True)
        self.assertLess(leads, 60)
        # The one that led comes back, and follows.
        self.leader.start()
        self.assertEqual(self.leader.output(id), self.wanted)
        again = self.leader.submit("ACGT" * 100)
        self.assertEqual(self.leader.over(again)["state"], "succeeded")
        self.assertEqual(self.row()[0], term + 1)

    def test_the_leader_is_frozen(self):
        id = self.start_job()
        term, _ = self.row()
        self.leader.process.send_signal(signal.SIGSTOP)
        since = time.monotonic()
        leads = self.taken_over(since, term)
        before = self.other.done(id)
        wait_for("a chunk", lambda: self.other.done(id) > before)
        goes_on = time.monotonic() - since
        time.sleep(max(0, 15 - goes_on))
        self.leader.process.send_signal(signal.SIGCONT)
        said = wait_for("the old leader to see it", lambda: re.search(
            r"leads no longer.*", self.leader.errors()))
        extra = self.check(self.leader, id, 1)
        self.assertEqual(self.row(), (term + 1, self.other.worker_listen))
        self.assertIn(f"leads term={term}", self.leader.errors())
        print(f"\nleader frozen: the other led after {leads:.1f} s, the next chunk was committed "
              f"after {goes_on:.1f} s, {extra} tokens computed again; it said: {said.group()}",
              flush=True)

    def test_what_a_leader_of_before_writes_is_refused(self):
        """Somebody else takes over between two beats of the leader, which goes on writing."""
        both = ",".join(server.worker_listen for server in self.servers)
        for _ in range(WORKERS):
            self.worker(self.leader, "--device", "sim:layer_ms=10,layers=4", connect=both)
        length = 250 * 64
        id = self.leader.submit("A" * length, chunk=64)
        wait_for("some chunks", lambda: self.other.done(id) >= 8)
        refused, tries = None, 0
        while not refused:  # a beat may have told it before it wrote
            tries += 1
            term, _ = self.row()
            self.assertTrue(self.leader.running(id))
            taken = self.postgres.query(
                "BEGIN; SELECT pg_advisory_xact_lock(7814421391) IS NULL; "
                "UPDATE leadership SET term = term + 1, server = 'ghost', "
                "endpoint = 'tcp://127.0.0.1:1', "
                "beat_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint; "
                f"SELECT committed, epoch, next_chunk FROM jobs WHERE id = '{id}'; COMMIT")
            since = time.monotonic()
            wait_for("the leader to see it", lambda: re.search(
                rf"(what it writes is refused|leads no longer) term=({term}|{term + 1}) ",
                self.leader.errors()))
            refused = re.search(rf"what it writes is refused term={term} .*", self.leader.errors())
            later = self.postgres.query(
                f"SELECT committed, epoch, next_chunk FROM jobs WHERE id = '{id}'")
            self.assertEqual(self.row()[0], term + 1)  # still the ghost's, or this says nothing
            self.assertEqual(later[-1], taken[-1])
            wait_for("a real leader", lambda: self.row()[0] == term + 2 and self.leads())
            leads = time.monotonic() - since
            self.leader = self.leads()
        self.assertEqual(self.leader.over(id)["state"], "succeeded")
        check_simulated(self, self.leader.output(id), length)
        check_ledger(self, self.leader, [id])
        extra = self.leader.job(id)["progress"]["tokens_computed"] - length
        self.assertLessEqual(extra, tries * WORKERS * 5 * 64)
        print(f"\nleader deposed, {tries} times until it wrote: {refused.group()}; a server led "
              f"again after {leads:.1f} s, {extra} tokens computed again", flush=True)

    def test_the_leader_ends(self):
        """SIGTERM: the other need not wait until it is believed lost."""
        id = self.start_job()
        term, _ = self.row()
        since = time.monotonic()
        self.assertEqual(self.leader.stop(), 0, self.leader.errors())
        stopped = time.monotonic() - since
        leads = self.taken_over(since, term)
        for _ in range(WORKERS):  # a server that drains sends its workers away
            self.worker(self.other)
        extra = self.check(self.other, id, 1)
        print(f"\nleader ended: after {stopped:.1f} s, the other led after {leads:.1f} s, {extra} "
              "tokens computed again", flush=True)

    def test_the_database_goes_away(self):
        id = self.start_job()
        self.postgres.stop(signal.SIGQUIT)
        time.sleep(3)
        self.assertNotEqual(self.other.request("GET", "/readyz")[0], 200)
        self.postgres.start()
        extra = self.check(self.other, id, 2)
        print(f"\ndatabase crashed, and came back after 3 s: {extra} tokens computed again",
              flush=True)


if __name__ == "__main__":
    unittest.main()
