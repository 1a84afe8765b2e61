"""Whatever `longwave run` does, a server does as well: the same options give the same files, with
one worker, with two, and with workers that are killed in between."""

import json
import os
import random
import signal
import unittest

from cluster import DNA, IDS, TEXT, ClusterTest, check_ledger, kill, wait_for
from support import S4D, SOURCE

ROTARY = SOURCE / "tests" / "golden" / "h3-hybrid-rotary"  # two layers of three have attention


class Tasks(ClusterTest):
    def setUp(self):
        super().setUp()
        self.path("models").joinpath(ROTARY.name).symlink_to(ROTARY)
        self.server = self.server("--workers", 0)

    def client(self, *arguments, stdin=b""):
        environment = {**os.environ, "LONGWAVE_SERVER": self.server.url}
        return self.run_program(*arguments, env=environment, stdin=stdin)

    def client_ok(self, *arguments):
        done = self.client(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().strip()

    def written(self, folder):
        return {path.name: path.read_bytes() for path in self.path(folder).iterdir()}

    def kinds(self):
        """(what it is, model, out, options as of run and submit)"""
        letters = random.Random(1)
        bases = "".join(letters.choices("ACGT", k=3000))
        fasta = self.path("two.fa", f">one x\n{bases[:1700]}\n>t|wo\n{bases[1700:1901]}\n>three\nA\n")
        text = self.path("text.txt", "The quick brown fox jumps over the lazy dog. " * 12)
        ids = self.npy("ids.npy", [i * 37 % 104 for i in range(600)], (4, 150))
        row = self.npy("row.npy", [i * 31 % 104 for i in range(150)], (1, 150))
        hybrid = self.npy("hybrid.npy", [i * 29 % 120 for i in range(900)])
        floats = [letters.uniform(-1, 1) for _ in range(500 * self.width())]
        signal_, signals = self.path("signal.npy"), self.path("signals.npy")
        self.npy(signal_.name, floats, (500, self.width()), "<f4")
        self.npy(signals.name, floats, (5, 100, self.width()), "<f4")
        several = ["--max-new-tokens", 90, "--chunk", 64]
        drawn = ["--temperature", 0.8, "--top-k", 40, "--top-p", 0.95, "--seed", 2**64 - 1]
        return [
            ("records", DNA, "o.npy", [fasta, "--chunk", 256]),
            ("records embedded", DNA, "o.npy", [fasta, "--task", "embed", "--window", 100,
                                                "--chunk", 256]),
            ("records continued", DNA, "o.txt", [fasta, "--task", "generate", *several, *drawn]),
            ("a batch", IDS, "o.npy", [ids, "--chunk", 40]),
            ("a batch's logits", IDS, "o.npy", [ids, "--task", "logits", "--chunk", 70]),
            ("a batch of one", IDS, "o.npy", [row, "--task", "embed", "--window", 64,
                                              "--chunk", 40]),
            ("a batch continued", IDS, "o.npy", [ids, "--task", "generate", *several]),
            ("attention", TEXT, "o.npy", [text, "--chunk", 100]),
            ("attention's logits", ROTARY, "o.npy", [hybrid, "--task", "logits", "--chunk", 100]),
            ("attention continued", TEXT, "o.txt", ["--task", "generate", "--prompt", "It was ",
                                                    "--max-new-tokens", 150, "--chunk", 32]),
            ("drawn from attention", ROTARY, "o.npy", [hybrid, "--task", "generate", *drawn,
                                                       "--max-new-tokens", 200, "--chunk", 128]),
            ("a signal", S4D, "o.npy", [signal_, "--task", "transform", "--chunk", 64]),
            ("a batch of signals", S4D, "o.npy", [signals, "--task", "transform", "--chunk", 33]),
        ]

    def width(self):
        return json.loads((S4D / "config.json").read_text())["d_model"]

    def check(self, kinds, meanwhile=lambda ids: None):
        for what, model, out, options in kinds:
            self.path(f"run {what}").mkdir()
            self.run_ok(model, *options, "--out", self.path(f"run {what}") / out, "--quiet")
        jobs = {what: self.client_ok("submit", model.name, *options)
                for what, model, _, options in kinds}
        meanwhile(list(jobs.values()))
        for what, _, out, _ in kinds:
            with self.subTest(what):
                self.path(f"job {what}").mkdir()
                self.client_ok("result", jobs[what], "--wait", "--out",
                               self.path(f"job {what}") / out)
                self.assertEqual(self.written(f"job {what}"), self.written(f"run {what}"))
        return jobs

    def test_one_worker(self):
        self.worker(self.server)
        kinds = self.kinds()
        jobs = self.check(kinds)
        self.assertEqual(sorted(self.written("job records")),
                         ["o.one.npy", "o.t_wo.npy", "o.three.npy"])
        job = self.server.job(jobs["records"])
        self.assertEqual(job["sequences"], 3)
        self.assertEqual(job["output"], {"dtype": "float32", "files": 3})
        progress = job["progress"]
        self.assertEqual((progress["tokens"], progress["chunks"]), (1902, 7 + 1 + 1))
        self.assertEqual(progress["tokens_done"], 1902)
        listed = self.server.json("GET", f"/v1/jobs/{jobs['records']}/sequences?from=1&limit=1")
        self.assertEqual(listed, {"sequences": [{"number": 1, "name": "t_wo", "tokens": 201,
                                                 "shape": [201]}], "next": 2})
        self.assertEqual(self.server.job(jobs["a batch continued"])["output"],
                         {"dtype": "int32", "shape": [4, 90]})
        for job in jobs.values():
            progress = self.server.job(job)["progress"]
            self.assertEqual(progress["tokens_computed"], progress["tokens"])
        check_ledger(self, self.server, jobs.values())
        # Nothing but outputs and manifests is kept.
        kept = {path.suffix for path in (self.folder / "data/objects/jobs").rglob("*")
                if path.is_file()}
        self.assertEqual(kept, {".output", ".json"})

    def test_two_workers(self):
        for _ in range(2):
            self.worker(self.server)
        check_ledger(self, self.server, self.check(self.kinds()).values())

    def test_workers_that_are_killed(self):
        def kill_all_three_times(ids):
            for _ in range(3):
                done = sum(map(self.server.done, ids))
                for _ in range(2):
                    self.worker(self.server)
                # Until all is done each of them has a chunk in work.
                wait_for("a chunk", lambda: sum(map(self.server.done, ids)) > done)
                for worker in self.processes:
                    kill(worker.pid)
                    self.assertEqual(worker.wait(), -signal.SIGKILL)
                self.processes.clear()
                self.assertTrue(any(map(self.server.running, ids)))
            for _ in range(2):
                self.worker(self.server)

        jobs = self.check(self.kinds(), kill_all_three_times)
        events = check_ledger(self, self.server, jobs.values())
        self.assertIn("lost", [kind for _, kind, _ in events])

    def test_serial_jobs_wait_for_each_chunk(self):
        for _ in range(2):
            self.worker(self.server)
        text = self.path("text.txt", "It was the best of times. " * 40)
        id = self.client_ok("submit", TEXT.name, text, "--chunk", 64)
        self.server.over(id)
        events = self.server.events(f"/v1/jobs/{id}/events?follow=0")
        self.assertNotIn("lost", [kind for _, kind, _ in events])
        self.assertEqual(self.server.job(id)["progress"]["tokens_computed"], 26 * 40)

    def test_refusals(self):
        source = self.path("x.txt", "ACGT")
        for said, *arguments in (
                ("--window", "h3-dna", source, "--window", 5),
                ("--seed needs a temperature", "h3-dna", source, "--task", "generate", "--seed", 1),
                ("--prompt is for task generate", "h3-dna", "--prompt", "x"),
                ("both an input", "h3-dna", source, "--task", "generate", "--prompt", "x"),
                ("no input", "h3-dna"),
                ('"transform"', "h3-dna", source, "--task", "transform"),
                ('"score"', "s4d", source),
                ("max-new-tokens 0", "h3-dna", source, "--task", "generate", "--max-new-tokens", 0),
                ("temperature -1", "h3-dna", source, "--task", "generate", "--temperature", -1)):
            with self.subTest(said):
                refused = self.client("submit", *arguments)
                self.assertEqual(refused.returncode, 2)
                self.assertRegex(refused.stderr.decode(), r"\Alongwave: [^\n]+\n\Z")
                self.assertIn(said, refused.stderr.decode())
        file = self.server.upload("ACGT", "x.txt")
        for said, job in (
                ("window 5 is for task embed, not score", {"window": 5}),
                ("top_k 3 needs a temperature", {"task": "generate", "top_k": 3}),
                ("top-p 1.5", {"task": "generate", "temperature": 1, "top_p": 1.5}),
                ('temperature "hot"', {"task": "generate", "temperature": "hot"}),
                ("seed -1", {"task": "generate", "temperature": 1, "seed": -1}),
                ("max_new_tokens 0", {"task": "generate", "max_new_tokens": 0})):
            with self.subTest(said):
                answer = self.server.json("POST", "/v1/jobs", {
                    "model": "h3-dna", "input": file, **job}, 400)
                self.assertIn(said, answer["detail"])

    def test_inputs_that_cannot_be(self):
        self.worker(self.server)
        width = self.width()
        bad = self.npy("nan.npy", [1.0] * (3 * width + 1) + [float("nan")] * (width - 1),
                       (4, width), "<f4")
        for said, model, options in (
                ('record "a/b" would overwrite', DNA.name,
                 [self.path("same.fa", ">a_b\nAC\n>a/b\nGT\n")]),
                ("the input at (3, 1) is nan", "s4d", [bad, "--task", "transform"]),
                (f"shape (L, {width})", "s4d", [self.npy("flat.npy", [0.0] * 9, (9,), "<f4"),
                                                "--task", "transform"]),
                ("pass the limit of", IDS.name,
                 [self.npy("many.npy", [1] * 40, (4, 10)), "--task", "logits",
                  "--max-logits-bytes", 39 * 104 * 4]),
                ("999", IDS.name, [self.npy("out.npy", [1, 2, 999, 3, 4, 5], (2, 3))])):
            with self.subTest(said):
                job = self.server.over(self.client_ok("submit", model, *options))
                self.assertEqual(job["state"], "failed")
                self.assertIn(said, job["error"])
        id = self.client_ok("submit", IDS.name, self.npy("ids.npy", [1, 2, 3]), "--task", "generate",
                            "--max-new-tokens", 5)
        self.server.over(id)
        refused = self.client("result", id, "--out", self.path("o.txt"))
        self.assertIn("has no tokenizer", refused.stderr.decode())
        self.assertFalse(self.path("o.txt").exists())
        id = self.client_ok("submit", DNA.name, self.path("two.fa", ">a\nAC\n>b\nGT\n"))
        self.server.over(id)
        status, _, answer = self.server.request("GET", f"/v1/jobs/{id}/output")
        self.assertEqual(status, 400, answer)
        self.assertIn(b"has outputs 0 to 1", answer)
        self.assertEqual(self.server.request("GET", f"/v1/jobs/{id}/output?sequence=2")[0], 400)


if __name__ == "__main__":
    unittest.main()
