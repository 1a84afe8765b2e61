"""generate: golden continuations, sampling, where the text goes."""

import unittest

from support import DNA, IDS, TEXT, CliTest, read_npy, tensor

NEW = 160  # bytes that each golden continuation adds to its prompt


def golden(index):
    values, _ = tensor(TEXT / "golden.safetensors", f"greedy_{index}")
    text = bytes(list(values))
    return text[:-NEW].decode(), text[-NEW:]


class Generate(CliTest):
    def continue_text(self, *options, prompt="The ", model=TEXT):
        return self.run_ok(model, "--task", "generate", "--prompt", prompt, "--quiet",
                           *options).stdout

    def test_greedy_is_golden(self):
        for index in range(3):
            prompt, expected = golden(index)
            with self.subTest(prompt=prompt):
                self.assertEqual(self.continue_text("--max-new-tokens", NEW, prompt=prompt), expected)

    def test_a_prompt_from_a_file_in_chunks(self):
        prompt, expected = golden(0)
        for source, stdin in ((self.path("prompt.txt", prompt), b""), ("-", prompt.encode())):
            result = self.run_ok(TEXT, source, "--task", "generate", "--max-new-tokens", 40,
                                 "--chunk", 5, "--quiet", stdin=stdin)
            self.assertEqual(result.stdout, expected[:40])

    def test_standard_output_is_the_text_alone(self):
        prompt, expected = golden(1)
        result = self.run_ok(TEXT, "--task", "generate", "--prompt", prompt, "--max-new-tokens", 20)
        self.assertEqual(result.stdout, expected[:20])
        self.assertIn(b"20 generated", result.stderr)

    def test_json(self):
        prompt, expected = golden(2)
        report = self.run_json(TEXT, "--task", "generate", "--prompt", prompt, "--max-new-tokens", 30)
        (sequence,) = report["sequences"]
        self.assertEqual(sequence["text"], expected[:30].decode())
        self.assertEqual((sequence["tokens"], sequence["generated_tokens"]), (len(prompt), 30))
        self.assertEqual(report["tokens"], len(prompt) + 30)

    def test_out(self):
        prompt, expected = golden(0)
        for name in ("out.txt", "out.npy"):
            stdout = self.continue_text("--max-new-tokens", 25, "--out", self.path(name),
                                        prompt=prompt)
            self.assertEqual(stdout, b"")
        self.assertEqual(self.path("out.txt").read_bytes(), expected[:25])
        values, shape = read_npy(self.path("out.npy"))
        self.assertEqual((bytes(list(values)), shape), (expected[:25], (25,)))

    def test_the_seed_decides(self):
        hot = ("--max-new-tokens", 60, "--temperature", 1)
        one, again, other = (self.continue_text(*hot, "--seed", seed) for seed in (1, 1, 2))
        self.assertEqual(one, again)
        self.assertNotEqual(one, other)

    def test_top_k_of_one_is_greedy(self):
        greedy = self.continue_text("--max-new-tokens", 40)
        for options in (("--top-k", 1), ("--top-p", 1e-9), ("--top-k", 3, "--top-p", 1e-9)):
            self.assertEqual(self.continue_text("--max-new-tokens", 40, "--temperature", 1, *options),
                             greedy)

    def test_several_prompts(self):
        fasta = self.path("p.fa", ">a\nACGTAC\n>b\nTTTT\n")
        result = self.run_ok(DNA, fasta, "--task", "generate", "--max-new-tokens", 8, "--quiet")
        expected = [self.continue_text("--max-new-tokens", 8, prompt=prompt, model=DNA)
                    for prompt in ("ACGTAC", "TTTT")]
        self.assertEqual(result.stdout, b"\n".join(expected))
        self.run_ok(DNA, fasta, "--task", "generate", "--max-new-tokens", 8, "--quiet", "--out",
                    self.path("o.txt"))
        self.assertEqual([self.path(f"o.{name}.txt").read_bytes() for name in "ab"], expected)

    def test_ids(self):
        ids = self.npy("ids.npy", [5, 6, 7, 8, 50, 40], (2, 3))
        generate = [IDS, ids, "--task", "generate", "--max-new-tokens", 4]
        report = self.run_json(*generate, "--out", self.path("o.npy"))
        values, shape = read_npy(self.path("o.npy"))
        self.assertEqual(shape, (2, 4))
        made = [sequence["ids"] for sequence in report["sequences"]]
        self.assertEqual(made, [list(values[:4]), list(values[4:])])
        printed = self.run_ok(*generate, "--quiet").stdout.decode()
        self.assertEqual(printed, "\n".join(" ".join(map(str, row)) for row in made))
        self.assert_refused([*generate, "--out", self.path("o.txt")], "o.txt", ".npy")


if __name__ == "__main__":
    unittest.main()
