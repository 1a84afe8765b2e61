"""Runs that are killed or stopped, and run again: the same bytes, and nothing left behind."""

import gzip
import json
import os
import pathlib
import random
import signal
import subprocess
import time
import unittest

from support import DNA, IDS, PROGRAM, S4D, SOURCE, TEXT, CliTest

GENOME = SOURCE / "examples" / "ecoli536.fna.gz"


class Resume(CliTest):
    def setUp(self):
        super().setUp()
        self.random = random.Random(1)
        self.out = self.path("out.npy")

    def bases(self, count):
        with gzip.open(GENOME, "rt") as lines:
            next(lines)
            letters = ""
            while len(letters) < count:
                letters += next(lines).strip()
        return letters[:count]

    def command(self, *arguments):
        return [PROGRAM, "run", *map(str, arguments), "--out", str(self.out), "--checkpoint", "0"]

    def outputs(self):
        """Of all files that begin as the output does: their bytes."""
        return {path.name: path.read_bytes() for path in self.folder.glob("out*")}

    def undisturbed(self, *arguments):
        self.run_ok(*arguments, "--out", self.out, "--quiet")
        outputs = self.outputs()
        for name in outputs:
            (self.folder / name).unlink()
        return outputs

    def interrupt(self, number, *arguments, points=1, stdin=None):
        """Sends the signal once so many points were written by this run; its standard error. None:
        it was over before."""
        point = pathlib.Path(f"{self.out}.resume")
        process = subprocess.Popen(self.command(*arguments), stdin=stdin, stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL)
        last, seen = self.stamp(point), 0
        while process.poll() is None and seen < points:
            now = self.stamp(point)
            seen += now is not None and now != last
            last = now or last
            time.sleep(0.001)
        time.sleep(self.random.random() * 0.03)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        return errors.decode() if process.returncode != 0 else None

    @staticmethod
    def stamp(path):
        try:
            info = path.stat()
            return info.st_mtime_ns, info.st_ino
        except FileNotFoundError:
            return None

    def kill_again_and_again(self, *arguments, kills=6, one_file=True):
        expected = self.undisturbed(*arguments)
        taken_up = 0
        for _ in range(kills):
            errors = self.interrupt(signal.SIGKILL, *arguments, points=self.random.randint(1, 4))
            if errors is None:
                break
            taken_up += "is taken up" in errors
            # A kill just after a sequence's file got its name finds no output in the making.
            if one_file:
                self.assertNotIn("is not used", errors)
        else:
            subprocess.run(self.command(*arguments), check=True, timeout=300,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertGreater(taken_up, 0)
        self.assertEqual(self.outputs(), expected)

    def test_score_killed(self):
        source = self.path("part.txt", self.bases(40000))
        self.kill_again_and_again(DNA, source, "--chunk", 700)

    def test_embed_killed(self):
        source = self.path("part.txt.gz", gzip.compress(self.bases(40000).encode()))
        self.kill_again_and_again(DNA, source, "--chunk", 1024, "--task", "embed", "--window", 1500)

    def test_logits_killed(self):
        source = self.path("part.txt", self.bases(20000))
        self.kill_again_and_again(DNA, source, "--chunk", 512, "--task", "logits")

    def test_records_killed(self):
        records = [self.bases(n) for n in (3000, 500, 7000, 9000, 1, 6000)]
        source = self.path("part.fa", "".join(f">r{i} x\n{r}\n" for i, r in enumerate(records)))
        self.kill_again_and_again(DNA, source, "--chunk", 500, kills=8, one_file=False)

    def test_batch_killed(self):
        ids = self.npy("ids.npy", [i * 37 % 104 for i in range(8 * 2000)], (8, 2000))
        self.kill_again_and_again(IDS, ids, "--chunk", 100)

    def test_stopped_and_run_again(self):
        source = self.path("part.txt", self.bases(40000))
        expected = self.undisturbed(DNA, source, "--chunk", 1000)
        for number in (signal.SIGINT, signal.SIGTERM):
            errors = self.interrupt(number, DNA, source, "--chunk", "1000")
            self.assertRegex(errors.splitlines()[-1], r"\Alongwave: stopped by SIG[A-Z]+; the same "
                             r"command goes on from .*/out.npy.resume\Z")
            self.assertEqual(sorted(self.outputs()), ["out.npy.partial", "out.npy.resume"])
        # What is refused leaves the point as it is.
        before = self.outputs()
        for arguments in ((self.path("nowhere"), source), (DNA, self.path("nowhere")),
                          (DNA, source, "--chunk", "0"), (S4D, source)):
            result = self.run_program("run", *arguments, "--out", self.out)
            self.assertEqual(result.returncode, 2)
        self.assertEqual(self.outputs(), before)
        result = self.run_ok(DNA, source, "--chunk", 1000, "--out", self.out, "--json")
        answer = json.loads(result.stdout)
        self.assertGreater(answer["resumed_tokens"], 0)
        self.assertEqual(answer["tokens"], 40000)
        self.assertRegex(result.stderr.decode(), r"out.npy.resume is taken up: goes on after [0-9,]+")
        self.assertEqual(self.outputs(), expected)

    def test_the_report_of_an_interrupted_run_is_whole(self):
        records = [self.bases(n) for n in (1500, 30000, 2500)]
        source = self.path("part.fa", "".join(f">r{i}\n{r}\n" for i, r in enumerate(records)))
        arguments = (DNA, source, "--chunk", "500")
        want = self.run_json(*arguments, "--out", self.out)
        for path in self.folder.glob("out*"):
            path.unlink()
        self.assertIsNotNone(self.interrupt(signal.SIGINT, *arguments, points=4))
        got = self.run_json(*arguments, "--out", self.out)
        self.assertEqual(got["sequences"], want["sequences"])
        self.assertEqual(got["outputs"], want["outputs"])

    def stopped(self, *arguments, points=2):
        for path in self.folder.glob("out*"):
            path.unlink()
        self.assertIsNotNone(self.interrupt(signal.SIGINT, *arguments, points=points))

    def test_what_does_not_match_is_not_used(self):
        text = self.bases(30000)
        source, model = self.path("part.txt", text), self.path("model")
        model.mkdir()
        for name in ("config.json", "model.safetensors"):
            (model / name).write_bytes((DNA / name).read_bytes())
        first = (model, source, "--chunk", "600")

        def other_tokens():
            source.write_text("ACGT" + text[4:])

        def other_model():
            (model / "config.json").write_text((DNA / "config.json").read_text() + " ")

        def damage(name, at):
            def change():
                path = self.folder / name
                data = bytearray(path.read_bytes())
                data[at] ^= 1
                path.write_bytes(data)
            return change

        cases = [("chunk", lambda: None, (model, source, "--chunk", "500"), "--chunk 600, not --chunk 500"),
                 ("task", lambda: None, (*first, "--task", "embed"), "--task score, not"),
                 ("tokens", other_tokens, first, "part.txt has changed"),
                 ("model", other_model, first, "model"),
                 ("output", damage("out.npy.partial", 500), first, "is not what the run before"),
                 ("no output", (self.folder / "out.npy.partial").unlink, first,
                  "is not what the run before"),
                 ("point", damage("out.npy.resume", 50), first, "checksum"),
                 ("cut", lambda: os.truncate(self.folder / "out.npy.resume", 100), first, ""),
                 ("shorter", lambda: source.write_text(text[:1000]), first, "has changed")]
        for name, change, arguments, said in cases:
            with self.subTest(name):
                source.write_text(text)
                (model / "config.json").write_text((DNA / "config.json").read_text())
                self.stopped(*first)
                change()
                result = self.run_ok(*arguments, "--out", self.out, "--checkpoint", 0)
                lines = [line for line in result.stderr.decode().splitlines() if "resume" in line]
                self.assertEqual(len(lines), 1, result.stderr)
                self.assertIn("out.npy.resume is not used: ", lines[0])
                self.assertIn(said, lines[0])
                got = self.outputs()
                self.assertEqual(got, self.undisturbed(*arguments))
        # A long output, of which nothing is used, and then a short one with points of its own.
        source.write_text(text)
        long, short = ["--task", "logits", "--chunk", "600"], self.path("short.txt", "TTT" + text[:5000])
        self.stopped(model, source, *long, points=1)
        result = self.run_ok(model, short, *long, "--out", self.out, "--checkpoint", 0)
        self.assertIn(b"is not used", result.stderr)
        self.assertEqual(self.outputs(), self.undisturbed(model, short, *long))
        # Only what is still to come has changed: what was read is the same, and so is the result.
        source.write_text(text)
        self.stopped(*first)
        source.write_text(text[:-1] + "A")
        result = self.run_ok(*first, "--out", self.out)
        self.assertIn(b"is taken up", result.stderr)
        self.assertEqual(self.outputs(), self.undisturbed(*first))

    def test_what_cannot_go_on_says_so(self):
        source = self.path("part.txt", self.bases(400000))
        for arguments, why in (((DNA, "-"), "its input is not a file"),
                               ((TEXT, source, "--chunk", "500"), "its model has attention")):
            with open(source) as stdin:
                process = subprocess.Popen(self.command(*arguments), stdin=stdin,
                                           stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            self.assertIn(b"tokens", process.stderr.readline())  # progress
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 130)
            self.assertIn(f"stopped by SIGINT; such a run cannot go on later: {why}",
                          errors.decode().splitlines()[-1])
            self.assertEqual(self.outputs(), {})

    def test_two_runs_of_one_output(self):
        source = self.path("part.txt", self.bases(30000))
        expected = self.undisturbed(DNA, source)
        runs = [subprocess.Popen(self.command(DNA, source), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL) for _ in range(3)]
        for run in runs:
            self.assertEqual(run.wait(timeout=300), 0)
        self.assertEqual(self.outputs(), expected)

    def test_a_point_that_cannot_be_written_costs_a_line(self):
        source = self.path("part.txt", self.bases(20000))
        expected = self.undisturbed(DNA, source, "--chunk", "1000")
        self.path("out.npy.resume.partial").mkdir()
        result = self.run_ok(DNA, source, "--chunk", 1000, "--out", self.out, "--checkpoint", 0)
        lines = [line for line in result.stderr.decode().splitlines() if "interrupted" in line]
        self.assertEqual(len(lines), 1, result.stderr)
        self.path("out.npy.resume.partial").rmdir()
        self.assertEqual(self.outputs(), expected)

    def test_seconds_that_are_none(self):
        for value in ("-1", "nan", "1e9"):
            self.assert_refused([DNA, self.path("part.txt", "ACGT"), "--checkpoint", value],
                                "--checkpoint")


if __name__ == "__main__":
    unittest.main()
