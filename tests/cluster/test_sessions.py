"""Sessions: what is appended piece by piece has the scores of one run over all of it."""

import json
import struct
import threading
import unittest

from cluster import IDS, ClusterTest, Refusals


class Sessions(Refusals, ClusterTest):
    def scores(self, bases):
        """Of `longwave run` over all of them; the first token has none."""
        content = self.expected(self.path("all.txt", bases))
        values = struct.unpack(f"<{len(bases)}f", content[128:])
        return [None, *values[1:]]

    def append(self, name, text, status=200, **more):
        return self.api.json("POST", f"/v1/sessions/{name}/append", {"text": text, **more}, status)

    def same(self, got, want):
        self.assertEqual(len(got), len(want))
        for index, (a, b) in enumerate(zip(got, want)):
            self.assertEqual(a is None, b is None, index)
            if a is not None:
                self.assertAlmostEqual(a, b, delta=2e-4, msg=index)

    def test_piece_by_piece(self):
        self.api = self.server()
        bases = self.genome(1200)
        made = self.api.json("POST", "/v1/sessions", {"name": "s1", "model": "h3-dna"}, 201)
        self.assertEqual((made["tokens"], made["tenant"]), (0, "default"))
        got, at = [], 0
        for count in (1, 1, 300, 1, 2, 500, 395):  # through a start again
            answer = self.append("s1", bases[at:at + count], at=at)
            got += answer["scores"]
            at += count
            self.assertEqual(answer["tokens"], at)
            self.assertEqual(self.api.json("GET", "/v1/sessions/s1")["tokens"], at)
            if count == 300:
                self.api.kill()
                self.api.start()
        self.same(got, self.scores(bases))
        # Nothing is left of the jobs; of the states only the last is kept.
        self.assertEqual(self.api.json("GET", "/v1/jobs")["jobs"], [])
        self.assertEqual(self.api.json("GET", "/v1/files")["files"], [])
        kept = [path for path in (self.folder / "data/objects/sessions").rglob("*") if path.is_file()]
        self.assertEqual(len(kept), 1, kept)
        self.assertEqual(self.api.request("DELETE", "/v1/sessions/s1")[0], 204)
        self.assertFalse(kept[0].exists())
        self.refused(404, 'there is no session "s1"', "GET", "/v1/sessions/s1")

    def test_a_session_of_ids(self):
        self.api = self.server()
        self.api.json("POST", "/v1/sessions", {"name": "ids", "model": IDS.name}, 201)
        for tokens in ([5, 6, 7], [8], [9, 10]):
            answer = self.api.json("POST", "/v1/sessions/ids/append", {"tokens": tokens})
            self.assertEqual(len(answer["scores"]), len(tokens))
        self.refused(400, "has no tokenizer", "POST", "/v1/sessions/ids/append", '{"text": "a"}')
        self.refused(400, "tokens[1] 99999: must be below the vocabulary", "POST",
                     "/v1/sessions/ids/append", '{"tokens": [1, 99999]}')

    def test_of_two_at_a_time_one_is_refused(self):
        self.api = self.server()
        self.api.json("POST", "/v1/sessions", {"name": "s", "model": "h3-dna"}, 201)
        self.append("s", "ACGT")
        answers = []

        def append(text):
            answers.append(self.api.request("POST", "/v1/sessions/s/append",
                                            json.dumps({"text": text, "at": 4})))
        threads = [threading.Thread(target=append, args=(text,)) for text in ("AAAA", "CCCC")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(status for status, _, _ in answers), [200, 409], answers)
        self.assertEqual(self.api.json("GET", "/v1/sessions/s")["tokens"], 8)

    def test_what_is_refused(self):
        self.api = self.server("--workers", 0)
        for body, said in (
                ({"model": "h3-dna"}, 'name ""'), ({"name": "../x", "model": "h3-dna"}, '"../x"'),
                ({"name": "a/b", "model": "h3-dna"}, '"a/b"'), ({"name": "a", "model": "x"}, '"x"'),
                ({"name": "a", "model": "s4d"}, "S4D"), ({"name": "n" * 64, "model": "h3-dna"}, "nn"),
                ({"name": "a", "model": "h3-dna", "x": 1}, 'field "x"')):
            self.refused(400, said, "POST", "/v1/sessions", json.dumps(body))
        self.api.json("POST", "/v1/sessions", {"name": "s", "model": "h3-dna"}, 201)
        self.refused(409, "s", "POST", "/v1/sessions", '{"name": "s", "model": "h3-dna"}')
        target = "/v1/sessions/s/append"
        for body, said in (
                ({}, "text, tokens (none)"), ({"text": "a", "tokens": [1]}, "text, tokens (both)"),
                ({"text": ""}, "at least one"), ({"tokens": []}, "at least one"),
                ({"tokens": [1, -1]}, "tokens[1] -1"), ({"tokens": ["a"]}, 'tokens[0] "a"'),
                ({"tokens": "a"}, 'tokens "a"'), ({"tokens": [256]}, "tokens[0] 256"),
                ({"text": 5}, "text 5"), ({"text": "A" * 20000}, "of at most 16384 bytes"),
                ({"text": "a", "timeout_seconds": 0}, "timeout_seconds 0")):
            self.refused(400, said, "POST", target, json.dumps(body))
        self.refused(409, "at 3: session s has 0 tokens", "POST", target, '{"text": "A", "at": 3}')
        # No worker: no answer, and nothing is appended or left.
        self.refused(504, "no answer in time", "POST", target,
                     '{"text": "ACGT", "timeout_seconds": 1}')
        self.assertEqual(self.api.json("GET", "/v1/sessions/s")["tokens"], 0)
        self.assertEqual(self.api.json("GET", "/v1/jobs")["jobs"], [])
        self.assertEqual(self.api.json("GET", "/v1/files")["files"], [])

    def test_pages(self):
        self.api = self.server("--workers", 0)
        for name in "abcde":
            self.api.json("POST", "/v1/sessions", {"name": name, "model": "h3-dna"}, 201)
        seen, target = [], "/v1/sessions?limit=2"
        while target:
            page = self.api.json("GET", target)
            seen += [session["name"] for session in page["sessions"]]
            cursor = page.get("next_cursor")
            target = cursor and f"/v1/sessions?limit=2&cursor={cursor}"
        self.assertEqual("".join(seen), "edcba")


if __name__ == "__main__":
    unittest.main()
