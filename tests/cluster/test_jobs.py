"""Jobs that go well: every task, the client's commands, an end and a start in between."""

import json
import os
import signal
import socket
import subprocess
import unittest

from cluster import IDS, PROGRAM, ClusterTest, wait_for
from support import write_npy


class Jobs(ClusterTest):
    def test_the_same_bytes_as_run(self):
        server = self.server("--workers", 0)
        for _ in range(3):
            self.worker(server)
        bases = self.genome(30000)
        source = self.path("part.txt", bases)
        tasks = {"score": {}, "embed": {"window": 700}, "logits": {}}
        jobs = {}
        for task, more in tasks.items():
            jobs[task] = server.submit(bases[:5000] if task == "logits" else bases, task=task,
                                       chunk=1024, **more)
        for task, id in jobs.items():
            job = server.over(id)
            self.assertEqual(job["state"], "succeeded", job)
            if task == "logits":
                source.write_text(bases[:5000])
            else:
                source.write_text(bases)
            options = ["--task", task, "--chunk", 1024]
            options += ["--window", 700] if task == "embed" else []
            self.assertEqual(server.output(id), self.expected(source, *options), task)
            progress = job["progress"]
            self.assertEqual(progress["tokens_computed"], progress["tokens"])
        kept = sorted(path.name for path in (self.folder / "data/objects/jobs" /
                                             jobs["logits"]).rglob("*") if path.is_file())
        self.assertEqual(kept, [*(f"{k}.output" for k in range(5)), "manifest.json"])

    def test_a_boundary_that_is_not_the_one_committed_is_refused(self):
        """Another sequence's, good in itself: of this model, position and checksum."""
        server = self.server("--workers", 0)
        worker = self.worker(server)
        other, job = (server.submit(bases * 4096, chunk=256) for bases in ("ACGT", "GATC"))
        wait_for("chunks of both", lambda: min(server.done(other), server.done(job)) >= 2)
        worker.kill()
        worker.wait()
        kept = {}
        for id in (other, job):
            paths = (self.folder / "data/objects/jobs" / id).glob("*/*.boundary")
            kept[id] = {int(path.stem): path for path in sorted(paths)}
        for chunk, path in kept[job].items():
            if chunk in kept[other]:
                path.write_bytes(kept[other][chunk].read_bytes())
        self.assertIn(server.done(job) - 1, kept[other])
        self.worker(server)
        failed = server.over(job)
        self.assertEqual(failed["state"], "failed", failed)
        self.assertRegex(failed["error"], r"boundary: its SHA-256 is \w+, it was written with \w+")
        self.assertEqual(server.over(other)["state"], "succeeded")

    def test_ids_and_fasta(self):
        server = self.server()
        ids = self.npy("ids.npy", [i * 37 % 104 for i in range(100)])
        job = server.submit(ids.read_bytes(), "ids.npy", model=IDS.name, chunk=7)
        self.assertEqual(server.over(job)["state"], "succeeded")
        out = self.path("want.npy")
        self.run_ok(IDS, ids, "--out", out, "--chunk", 7, "--quiet")
        self.assertEqual(server.output(job), out.read_bytes())
        fasta = b">x\nACGT\nacgtn\n"
        job = server.submit(fasta, "x.fa")
        self.assertEqual(server.over(job)["output"]["shape"], [9])
        for content, name, said in ((b"", "x.txt", "empty"),
                                    (b"\x93NUMPYx", "x.npy", "npy")):
            job = server.over(server.submit(content, name))
            self.assertEqual(job["state"], "failed")
            self.assertIn(said, job["error"])
        write_npy(ids, [1, 2, 300])
        job = server.over(server.submit(ids.read_bytes(), "ids.npy", model=IDS.name))
        self.assertEqual(job["state"], "failed")
        self.assertIn("300", job["error"])

    def test_the_clients_commands(self):
        server = self.server()
        environment = {**os.environ, "LONGWAVE_SERVER": server.url}

        def client(*arguments, **options):
            return self.run_program(*arguments, env=environment, **options)

        source = self.path("part.txt", self.genome(9000))
        done = client("submit", "h3-dna", source, "--chunk", 1000, "--wait")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout.decode(), r"\A[0-9a-f]{16}\n\Z")
        id = done.stdout.decode().strip()
        status = json.loads(client("status", id, "--json").stdout)
        self.assertEqual((status["state"], status["progress"]["tokens_done"]), ("succeeded", 9000))
        out = self.path("got.npy")
        self.assertEqual(client("result", id, "--out", out).returncode, 0)
        self.assertEqual(out.read_bytes(), self.expected(source, "--chunk", 1000))
        piped = client("submit", "h3-dna", "-", "--wait", "--json", stdin=b"ACGT" * 9)
        self.assertEqual(json.loads(piped.stdout)["output"]["shape"], [36])
        listed = json.loads(client("list", "--json", "--state", "succeeded").stdout)
        self.assertEqual(len(listed["jobs"]), 2)
        self.assertIn(id, client("list").stdout.decode())
        for arguments, said in ((["status", "nothing"], 'there is no job "nothing"'),
                                (["cancel", id], "succeeded already"),
                                (["submit", "h3", source], 'model "h3"'),
                                (["submit", "h3-dna", "/nowhere"], "/nowhere"),
                                (["list", "--state", "odd"], '"odd"'),
                                (["status", id, "--server", "ftp://x"], "ftp://x"),
                                (["status", id, "--server", "http://127.0.0.1:1"], "refused")):
            with self.subTest(arguments=arguments):
                refused = client(*arguments)
                self.assertEqual(refused.returncode, 2)
                self.assertFalse(refused.stdout)
                self.assertRegex(refused.stderr.decode(), r"\Alongwave: [^\n]+\n\Z")
                self.assertIn(said, refused.stderr.decode())

    def test_a_drained_server_and_its_worker_lose_nothing(self):
        server = self.server("--workers", 0)
        worker = self.worker(server)
        bases = self.genome(60000)
        id = server.submit(bases, chunk=2000)
        wait_for("a few chunks", lambda: server.job(id)["progress"]["chunks_done"] >= 3)
        self.assertEqual(server.stop(), 0)
        self.assertIsNone(worker.poll())  # it waits for a server
        worker.send_signal(signal.SIGSTOP)
        server.start()
        progress = server.job(id)["progress"]
        self.assertLess(progress["chunks_done"], 30)
        self.assertEqual(progress["tokens_computed"], progress["tokens_done"])
        worker.send_signal(signal.SIGCONT)
        wait_for("more chunks", lambda: server.job(id)["progress"]["chunks_done"] >
                 progress["chunks_done"] + 2)
        worker.send_signal(signal.SIGTERM)
        self.assertEqual(worker.wait(timeout=60), 0)
        self.worker(server)
        job = server.over(id)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(job["progress"]["tokens_computed"], 60000)
        self.assertEqual(server.output(id),
                         self.expected(self.path("part.txt", bases), "--chunk", 2000))

    def test_over_ipv6(self):
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            self.skipTest("NOT TESTED: there is no IPv6 here")
        server = self.server("--workers", 1, "--listen", "[::1]:0", "--worker-listen", "tcp://[::]:0")
        worker = self.worker(server, "--link-listen", "tcp://[::1]:0",
                             connect="tcp://[::1]:" + server.worker_listen.rpartition(":")[2])
        wait_for("the workers", lambda: len(server.json("GET", "/v1/workers")["workers"]) == 2)
        bases = self.genome(30000)
        id = server.submit(bases, chunk=1000)
        self.assertEqual(server.over(id)["state"], "succeeded")
        self.assertEqual(server.output(id), self.expected(self.path("six.txt", bases), "--chunk", 1000))
        self.assertIsNone(worker.poll())

    def test_a_cancelled_job_ends(self):
        server = self.server()
        id = server.submit(self.genome(60000), chunk=1000)
        wait_for("a chunk", lambda: server.job(id)["progress"]["chunks_done"] >= 1)
        self.assertEqual(server.json("POST", f"/v1/jobs/{id}/cancel")["state"], "cancelled")
        other = server.submit("ACGT", chunk=1000)
        self.assertEqual(server.over(other)["state"], "succeeded")
        self.assertEqual(server.job(id)["state"], "cancelled")
        wait_for("no object of it", lambda: not any(
            path.is_file() for path in (self.folder / "data/objects/jobs" / id).rglob("*")))
        self.assertEqual(server.request("DELETE", f"/v1/jobs/{id}")[0], 204)
        self.assertEqual(server.request("GET", f"/v1/jobs/{id}")[0], 404)

    def test_one_data_folder_one_server(self):
        server = self.server("--workers", 0)
        second = subprocess.run([PROGRAM, "serve", "--data", self.folder / "data", "--models",
                                 self.folder / "models", "--listen", "127.0.0.1:0"],
                                stderr=subprocess.PIPE, stdout=subprocess.PIPE, timeout=60)
        self.assertEqual(second.returncode, 2)
        self.assertIn(b"another server uses it", second.stderr)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
