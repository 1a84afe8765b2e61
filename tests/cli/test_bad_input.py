"""Every way an input can be wrong: one line, exit code 2, nothing written."""

import gzip
import os
import unittest

from support import DNA, IDS, TEXT, CliTest


class BadInput(CliTest):
    def refused(self, model, source, *said, options=(), **more):
        return self.assert_refused([model, source, "--out", self.path("out.npy"), *options], *said,
                                   **more)

    def test_ids_outside_the_vocabulary(self):  # 104
        for bad in (104, 2**31 - 1, -1, -2**31):
            for chunk in (1, 4, 5, 6, 100):  # in a chunk, its last, the token after it
                with self.subTest(bad=bad, chunk=chunk):
                    ids = self.npy("ids.npy", [1, 2, 3, 4, 5, bad, 7])
                    self.refused(IDS, ids, bad, "position 5", options=["--chunk", chunk])

    def test_ids_outside_the_vocabulary_int64(self):
        for bad in (104, 2**31, 2**63 - 1, -2**63):
            with self.subTest(bad=bad):
                self.refused(IDS, self.npy("ids.npy", [1, 2, bad], dtype="<i8"), bad)

    def test_ids_outside_the_vocabulary_in_the_second_row(self):
        ids = self.npy("ids.npy", [1, 2, 3, 4, 104, 6], (2, 3))
        self.refused(IDS, ids, 104)

    def test_every_task_checks_ids(self):
        ids = self.npy("ids.npy", [1, 104])
        for task in ("score", "embed", "logits", "generate"):
            with self.subTest(task=task):
                self.refused(IDS, ids, 104, options=["--task", task])

    def test_text_for_a_model_without_a_tokenizer(self):
        for name in ("input.txt", "input.fa"):
            self.refused(IDS, self.path(name, ">a\nACGT\n"), "no tokenizer", ".npy")
        self.assert_refused([IDS, "--task", "generate", "--prompt", "hello"], "no tokenizer")

    def test_missing_input(self):
        self.refused(DNA, self.path("none.fa"), "none.fa")

    def test_input_is_a_folder(self):
        self.refused(DNA, self.folder, self.folder)

    @unittest.skipIf(os.geteuid() == 0, "root reads anything")
    def test_unreadable_input(self):
        self.path("secret.txt", "x").chmod(0)
        self.refused(DNA, self.path("secret.txt"), "secret.txt")

    def test_empty_input(self):
        self.refused(DNA, self.path("empty.txt", ""), "empty")
        self.refused(DNA, self.path("empty.fa", ""), "empty.fa")
        self.refused(DNA, self.path("empty.txt.gz", gzip.compress(b"")), "empty.txt.gz")
        self.refused(DNA, "-", "standard input", stdin=b"")
        for shape in ((0,), (2, 0), (0, 3)):
            with self.subTest(shape=shape):
                self.refused(IDS, self.npy("ids.npy", [], shape), "ids.npy")

    def test_fasta_without_records(self):
        self.refused(DNA, self.path("no-records.fa", "ACGT\nACGT\n"), "no-records.fa")
        self.refused(DNA, self.path("blank.fa", "\n\n"), "blank.fa")
        self.refused(DNA, self.path("x", "ACGT"), "x", options=["--format", "fasta"])

    def test_fasta_record_without_letters(self):
        self.refused(DNA, self.path("first.fa", ">a\n>b\nACGT\n"), "first.fa")
        self.refused(DNA, self.path("only.fa", ">a\n"), "only.fa")

    def test_a_later_record_without_letters(self):
        # The record before it is whole, and so is its file.
        fasta = self.path("last.fa", ">a\nACGT\n>b\n\n")
        result = self.run_program("run", DNA, fasta, "--out", self.path("out.npy"), "--quiet")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr.decode(), r"\Alongwave: [^\n]*last.fa[^\n]*\n\Z")
        self.assertEqual(self.files(), ["last.fa", "out.a.npy"])

    def test_records_whose_files_would_clash(self):
        # The first record's file is whole and stays: what is refused is the second.
        fasta = self.path("clash.fa", ">a|1\nACGT\n>a/1\nAC\n")
        result = self.run_program("run", DNA, fasta, "--out", self.path("out.npy"), "--quiet")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr.decode(), r"\Alongwave: [^\n]*a/1[^\n]*out.a_1.npy[^\n]*\n\Z")
        self.assertEqual(self.files(), ["clash.fa", "out.a_1.npy"])

    def test_broken_gzip(self):
        whole = gzip.compress(bytes(range(256)) * 40)
        self.refused(DNA, self.path("cut.gz", whole[:-9]), "cut.gz")
        spoilt = bytearray(whole)
        spoilt[len(whole) // 2] ^= 0xFF
        self.refused(DNA, self.path("spoilt.gz", bytes(spoilt)), "spoilt.gz")

    def test_broken_npy(self):
        ids = self.npy("ids.npy", [1, 2, 3])
        whole = ids.read_bytes()
        for name, data in {"cut": whole[:-1], "header": whole[:20], "long": whole + b"x",
                           "version": whole[:6] + b"\x09" + whole[7:],
                           "dict": whole.replace(b"descr", b"dscer")}.items():
            with self.subTest(name=name):
                ids.write_bytes(data)
                self.refused(IDS, ids, "ids.npy", options=["--format", "npy"])

    def test_npy_that_holds_no_ids(self):
        self.refused(IDS, self.npy("f.npy", [1.0, 2.0], dtype="<f4"), "f.npy")
        self.refused(IDS, self.npy("f.npy", [1, 2, 3, 4], (2, 2), fortran=True), "f.npy")
        self.refused(IDS, self.npy("f.npy", [1, 2, 3, 4], (1, 2, 2)), "(1, 2, 2)")

    def test_tasks_and_models_that_do_not_match(self):
        floats = self.npy("x.npy", [0.0] * 64, (1, 64), dtype="<f4")
        self.refused(IDS, floats, "language model", options=["--task", "transform"])

    def test_logits_limit_is_named(self):
        ids = self.npy("ids.npy", [1] * 100)
        limit = ["--task", "logits", "--max-logits-bytes", 100 * 104 * 4 - 1]
        self.refused(IDS, ids, 100 * 104 - 1, "100 tokens", "vocabulary 104", options=limit)
        rows = self.npy("rows.npy", [1] * 100, (50, 2))
        self.refused(IDS, rows, 100 * 104 - 1, "100 tokens", options=limit)
        limit[-1] += 1
        self.run_ok(IDS, ids, *limit, "--out", self.path("a.npy"), "--quiet")
        self.run_ok(IDS, rows, *limit, "--out", self.path("b.npy"), "--quiet")

    def test_logits_limit_of_an_unknown_length(self):
        text = self.path("text.txt", "x" * 1000)
        self.refused(DNA, text, 2**16, "vocabulary 256",
                     options=["--task", "logits", "--max-logits-bytes", "256KB", "--chunk", 100])

    def test_attention_cache_beyond_its_budget(self):
        ids = self.npy("ids.npy", [65] * 5000)
        text = self.path("text.txt", "x" * 5000)
        for source in (ids, text):  # refused before it begins, and when it comes to it
            with self.subTest(source=source.name):
                self.refused(TEXT, source, 4 * 2**20, options=["--cache-budget", "4MB", "--chunk", 512])
        self.assert_refused([TEXT, "--task", "generate", "--prompt", "x", "--max-new-tokens", 5000,
                             "--cache-budget", "4MB"], 4 * 2**20, "5000 tokens")


if __name__ == "__main__":
    unittest.main()
