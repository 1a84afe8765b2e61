"""Good runs: every input, every task, what is printed."""

import gzip
import math
import unittest

from support import DNA, IDS, S4D, TEXT, CliTest, read_npy, read_safetensors, tensor

BASES = "".join("ACGT"[(i * i + i // 7) % 4] for i in range(3000))


class Score(CliTest):
    def test_output(self):
        values, shape = self.score(DNA, self.path("a.txt", BASES))
        self.assertEqual(shape, (3000,))
        self.assertTrue(math.isnan(values[0]))
        self.assertTrue(all(0 < value < 20 for value in values[1:]))

    def test_every_kind_of_input_gives_the_same(self):
        expected = self.score(DNA, self.path("a.txt", BASES))
        lines = "\n".join(BASES[i:i + 70] for i in range(0, len(BASES), 70))
        fasta = f">chr1 a record\n{lines}\n".encode()
        sources = {
            "fasta": self.path("a.fa", fasta),
            "lower case": self.path("b.fa", fasta[:15] + fasta[15:].lower()),
            "gzip": self.path("a.fa.gz", gzip.compress(fasta)),
            "gzipped text": self.path("a.gz", gzip.compress(BASES.encode())),
            "int32": self.npy("a.npy", list(BASES.encode())),
            "int64": self.npy("b.npy", list(BASES.encode()), dtype="<i8"),
        }
        for name, source in sources.items():
            with self.subTest(name=name):
                values, shape = self.score(DNA, source)
                self.assertEqual(shape, (3000,))
                self.assertEqual(values[1:], expected[0][1:])
                piped, _ = self.score(DNA, "-", stdin=source.read_bytes())
                self.assertEqual(piped[1:], expected[0][1:])

    def test_format_decides(self):
        fasta = self.path("a.fa", ">x\nACGT\n")
        self.assertEqual(self.score(DNA, fasta)[1], (4,))
        self.assertEqual(self.score(DNA, fasta, "--format", "bytes")[1], (8,))

    def test_rows_of_an_array(self):
        first, second = [5, 6, 7, 8, 9], [50, 40, 30, 20, 10]
        values, shape = self.score(IDS, self.npy("rows.npy", first + second, (2, 5)))
        self.assertEqual(shape, (2, 5))
        expected = [*self.score(IDS, self.npy("a.npy", first))[0],
                    *self.score(IDS, self.npy("b.npy", second))[0]]
        self.assert_close(values, expected, 0)
        self.assertEqual(self.score(IDS, self.npy("rows.npy", first, (1, 5)))[1], (1, 5))

    def test_lengths_around_the_chunk(self):
        whole, _ = self.score(IDS, self.npy("whole.npy", [i * 37 % 104 for i in range(30)]))
        for length in (1, 2, 9, 10, 11, 19, 20, 21, 30):
            ids = self.npy("ids.npy", [i * 37 % 104 for i in range(length)])
            with self.subTest(length=length):
                values, shape = self.score(IDS, ids, "--chunk", 10)
                self.assertEqual(shape, (length,))
                self.assert_close(values, whole[:length], 1e-4)

    def test_chunk_length_does_not_matter(self):
        text = self.path("a.txt", BASES)
        expected, _ = self.score(DNA, text)
        for chunk in (7, 64, 1000, 2999, 3000):
            with self.subTest(chunk=chunk):
                self.assert_close(self.score(DNA, text, "--chunk", chunk)[0], expected, 1e-4)

    def test_threads_do_not_matter(self):
        text = self.path("a.txt", BASES)
        one, three = (self.score(DNA, text, "--threads", n)[0] for n in (1, 3))
        self.assertEqual(one[1:], three[1:])

    def test_several_records(self):
        fasta = self.path("three.fa", f">a x\n{BASES[:500]}\n>b|2\n{BASES[500:600]}\n>c\nA\n")
        report = self.run_json(DNA, fasta, "--out", self.path("out.npy"))
        paths = [str(self.path(f"out.{name}.npy")) for name in ("a", "b_2", "c")]
        self.assertEqual(report["outputs"], paths)
        self.assertEqual(self.files(), ["out.a.npy", "out.b_2.npy", "out.c.npy", "three.fa"])
        self.assertEqual([s["name"] for s in report["sequences"]], ["a", "b|2", "c"])
        self.assertEqual([s["output"] for s in report["sequences"]], paths)
        for path, piece in zip(paths, (BASES[:500], BASES[500:600], "A")):
            values, shape = read_npy(path)
            self.assertEqual(shape, (len(piece),))
            self.assert_close(values, self.score(DNA, self.path("x.txt", piece))[0], 0)

    def test_golden_losses_of_text(self):
        nll, _ = tensor(TEXT / "golden.safetensors", "nll_first16384_of_val")
        ids, _ = tensor(TEXT / "golden.safetensors", "val_ids")
        count = 4000
        values, _ = self.score(TEXT, self.path("a.txt", bytes(ids[:count + 1])), "--chunk", 1000)
        self.assert_close(values[1:], nll[:count], 1e-3)


class Report(CliTest):
    def test_json(self):
        report = self.run_json(DNA, self.path("a.txt", BASES), "--out", self.path("o.npy"),
                               "--chunk", 100, "--threads", 2, "--device", "cpu")
        seconds, rate = report.pop("seconds"), report.pop("tokens_per_second")
        self.assertGreater(seconds, 0)
        self.assertAlmostEqual(rate, 3000 / seconds, delta=rate * 1e-9)
        (sequence,) = report.pop("sequences")
        self.assertEqual(report, {"model": str(DNA), "task": "score", "device": "cpu",
                                  "dtype": "float32", "tokens": 3000, "chunk": 100, "threads": 2,
                                  "outputs": [str(self.path("o.npy"))]})
        values, _ = read_npy(self.path("o.npy"))
        mean = math.fsum(values[1:]) / 2999
        self.assertAlmostEqual(sequence.pop("mean_nats"), mean, delta=1e-9)
        self.assertAlmostEqual(sequence.pop("bits_per_token"), mean / math.log(2), delta=1e-9)
        self.assertEqual(sequence, {"name": "a.txt", "tokens": 3000,
                                    "output": str(self.path("o.npy"))})

    def test_json_without_output(self):
        report = self.run_json(DNA, "-", stdin=b"ACGTACGT")
        self.assertEqual(report["outputs"], [])
        self.assertIsNone(report["sequences"][0]["output"])
        self.assertEqual(report["sequences"][0]["name"], "standard input")
        self.assertEqual(self.files(), [])

    def test_one_token_has_no_mean(self):
        (sequence,) = self.run_json(DNA, self.path("a.txt", "A"))["sequences"]
        self.assertEqual((sequence["tokens"], sequence["mean_nats"]), (1, None))
        self.assertIsNone(sequence["bits_per_token"])

    def test_json_of_rows(self):
        report = self.run_json(IDS, self.npy("r.npy", [1, 2, 3, 4, 5, 6], (3, 2)), "--out",
                               self.path("o.npy"))
        self.assertEqual([s["name"] for s in report["sequences"]], ["0", "1", "2"])
        self.assertEqual((report["tokens"], report["outputs"]), (6, [str(self.path("o.npy"))]))

    def test_summary(self):
        result = self.run_ok(DNA, self.path("a.txt", BASES), "--out", self.path("o.npy"))
        self.assertRegex(result.stdout.decode(),
                         r"\Aa.txt: 3,000 tokens, mean \d+\.\d+ nats, \d+\.\d+ bits per token -> "
                         r".*o.npy\n3,000 tokens in .* s: [\d,]+ tokens/s\n\Z")
        self.assertEqual(result.stderr, b"")

    def test_quiet(self):
        result = self.run_ok(DNA, self.path("a.txt", BASES), "--out", self.path("o.npy"), "--quiet")
        self.assertEqual((result.stdout, result.stderr), (b"", b""))


class OtherTasks(CliTest):
    IDS100 = [i * 37 % 104 for i in range(100)]

    def make(self, model, source, task, *options):
        out = self.path("made.npy")
        self.run_ok(model, source, "--task", task, "--out", out, "--quiet", *options)
        return read_npy(out)

    def test_embed_windows(self):
        ids = self.npy("ids.npy", self.IDS100)
        each, shape = self.make(IDS, ids, "embed", "--window", 1)
        self.assertEqual(shape, (100, 64))
        for window, chunk in ((7, 16), (7, 100), (30, 7), (100, 33), (1000, 8), (50, 50)):
            with self.subTest(window=window, chunk=chunk):
                values, shape = self.make(IDS, ids, "embed", "--window", window, "--chunk", chunk)
                starts = range(0, 100, window)
                self.assertEqual(shape, (len(starts), 64))
                expected = [math.fsum(each[t * 64 + i] for t in range(s, min(s + window, 100))) /
                            (min(s + window, 100) - s) for s in starts for i in range(64)]
                self.assert_close(values, expected, 1e-4)
        self.assertEqual(self.make(IDS, ids, "embed")[1], (1, 64))

    def test_embed_rows(self):
        values, shape = self.make(IDS, self.npy("r.npy", self.IDS100, (4, 25)), "embed",
                                  "--window", 10, "--chunk", 8)
        self.assertEqual(shape, (4, 3, 64))
        last, _ = self.make(IDS, self.npy("ids.npy", self.IDS100[75:]), "embed", "--window", 10)
        self.assert_close(values[3 * 3 * 64:], last, 1e-4)

    def test_logits_are_golden(self):
        golden, shape = tensor(IDS / "golden.safetensors", "logits")
        ids, ids_shape = tensor(IDS / "golden.safetensors", "input_ids")
        source = self.npy("ids.npy", ids, ids_shape)
        norm = math.sqrt(math.fsum(b * b for b in golden))
        for chunk in (64, 8192):
            values, got_shape = self.make(IDS, source, "logits", "--chunk", chunk)
            self.assertEqual(list(got_shape), shape)
            difference = math.sqrt(math.fsum((a - b)**2 for a, b in zip(values, golden)))
            self.assertLessEqual(difference / norm, 1e-5)

    def test_logits_agree_with_score(self):
        ids = self.npy("ids.npy", self.IDS100)
        logits, shape = self.make(IDS, ids, "logits", "--chunk", 9)
        self.assertEqual(shape, (100, 104))
        nll = [math.nan]
        for t, target in enumerate(self.IDS100[1:]):
            row = logits[t * 104:(t + 1) * 104]
            most = max(row)
            nll.append(most + math.log(math.fsum(math.exp(x - most) for x in row)) - row[target])
        self.assert_close(self.score(IDS, ids)[0], nll, 1e-4)

    @unittest.skipUnless(S4D.exists(), "no S4D model")
    def test_transform(self):
        golden = read_safetensors(S4D / "golden.safetensors")
        self.assertIn("y", golden)
        (u, (batch, width, length)), (y, _) = (tensor(S4D / "golden.safetensors", name)
                                               for name in "uy")

        def rows(x):  # (batch, H, L) -> (batch, L, H)
            return [x[(b * width + h) * length + t]
                    for b in range(batch) for t in range(length) for h in range(width)]
        source = self.npy("u.npy", rows(u), (batch, length, width), "<f4")
        for chunk in (64, 1000):
            values, shape = self.make(S4D, source, "transform", "--chunk", chunk)
            self.assertEqual(shape, (batch, length, width))
            self.assert_close(values, rows(y), 1e-4)
        one = self.npy("u0.npy", rows(u)[:length * width], (length, width), "<f4")
        values, shape = self.make(S4D, one, "transform", "--chunk", 7)
        self.assertEqual(shape, (length, width))
        self.assert_close(values, rows(y)[:length * width], 1e-4)

    @unittest.skipUnless(S4D.exists(), "no S4D model")
    def test_transform_refuses(self):
        out = ["--task", "transform", "--out", self.path("out.npy")]
        width = tensor(S4D / "golden.safetensors", "u")[1][1]
        cases = {
            "width": (self.npy("a.npy", [0.0] * 6, (2, 3), "<f4"), "(2, 3)"),
            "vector": (self.npy("b.npy", [0.0] * 6, (6,), "<f4"), "(6,)"),
            "ids": (self.npy("c.npy", [0] * width, (1, width)), "float32"),
            "empty": (self.npy("d.npy", [], (0, width), "<f4"), "empty"),
            "nan": (self.npy("e.npy", [0.0] * (width + 1) + [math.nan] + [0.0] * (width - 2),
                             (2, width), "<f4"), "(1, 1)"),
            "text": (self.path("t.txt", "hello"), "t.txt"),
        }
        for name, (source, said) in cases.items():
            with self.subTest(name=name):
                self.assert_refused([S4D, source, *out], said)
        self.assert_refused([S4D, self.npy("ids.npy", [1, 2])], "language model")


if __name__ == "__main__":
    unittest.main()
