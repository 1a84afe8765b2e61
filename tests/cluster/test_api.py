"""Requests that are wrong, and what is said to them; ranges, pages and keys."""

import http.client
import json
import os
import subprocess
import unittest

from cluster import IDS, PATIENCE, SOURCE, ClusterTest, Refusals, wait_for


class Api(Refusals, ClusterTest):
    def setUp(self):
        super().setUp()
        self.api = self.server()

    def test_jobs_that_cannot_be(self):
        file = self.api.upload(b"ACGT", "a.txt")
        good = {"model": "h3-dna", "input": file}
        for change, said in (
                ({"model": "h4"}, 'model "h4": must be one of h3-dna'),
                ({"model": "../h3-dna"}, '"../h3-dna"'),
                ({"model": 5}, "model 5: must be a string"),
                ({"model": None}, "model null"),
                ({"model": "s4d"}, 'task "score": must be transform with model s4d'),
                ({"task": "transform"}, 'task "transform": must be one of score, embed'),
                ({"window": 5}, "window 5 is for task embed, not score"),
                ({"input": "feedfeedfeedfeed"}, 'input "feedfeedfeedfeed"'),
                ({"input": ["x"]}, 'input ["x"]'),
                ({"task": "guess"}, 'task "guess"'),
                ({"chunk": 0}, "chunk 0"),
                ({"chunk": -5}, "chunk -5"),
                ({"chunk": 1.5}, "chunk 1.5"),
                ({"chunk": 2**70}, "chunk 1.18"),
                ({"chunk": 2**30}, "chunk 1073741824: must be a whole number, 1 to 16777216"),
                ({"chunk": "8192"}, 'chunk "8192"'),
                ({"window": 0}, "window 0"),
                ({"max_logits_bytes": -1}, "max_logits_bytes -1"),
                ({"colour": "red"}, 'field "colour"')):
            with self.subTest(change=change):
                self.refused(400, said, "POST", "/v1/jobs", json.dumps({**good, **change}))
        for body, said in ((b"", "not JSON"), (b"{", "not JSON"), (b"[]", "body []"),
                           (b'{"model": "h3-dna"}', "input (none)"), (b"\xff\xfe", "not JSON"),
                           (b"[" * 5000, "not JSON"), (b'{"input": "%s"}' % file.encode(), "model")):
            with self.subTest(body=body[:20]):
                self.refused(400, said, "POST", "/v1/jobs", body)
        self.refused(413, "body: more than 262144", "POST", "/v1/jobs", b" " * 270000)
        self.assertEqual(self.api.json("GET", "/v1/jobs")["jobs"], [])

    def test_paths_and_methods(self):
        for target in ("/", "/v1", "/v1/", "/v2/jobs", "/v1/jobs/a/b", "/v1/jobs/a/output/c",
                       "/v1/jobs/..%2f..%2fetc", "/v1/jobs/%00", "/healthz/x"):
            with self.subTest(target=target):
                self.refused(404, "there is no", "GET", target)
        for method, target, allowed in (("PUT", "/v1/jobs", "GET, POST"),
                                        ("PUT", "/v1/files", "GET, POST"),
                                        ("POST", "/healthz", "GET"),
                                        ("PATCH", "/v1/jobs/x", "DELETE, GET"),
                                        ("GET", "/v1/jobs/x/cancel", "POST"),
                                        ("POST", "/v1/jobs/x/output", "GET")):
            with self.subTest(method=method, target=target):
                sent = self.refused(405, method, method, target)
                self.assertEqual(sent["Allow"], allowed)
        for query, said in (("limit=0", 'limit "0"'), ("limit=x", 'limit "x"'),
                            ("limit=1&limit=2", '"limit"'), ("cursor=5", 'cursor "5"'),
                            ("state=odd", 'state "odd"'), ("page=2", 'query "page"')):
            with self.subTest(query=query):
                self.refused(400, said, "GET", f"/v1/jobs?{query}")
        for name in ("..%2fx", "a/b", "x%00y", "n" * 256):
            self.refused(400, "name", "POST", f"/v1/files?name={name}", b"x")
        self.assertEqual(self.api.json("GET", "/healthz"), {"status": "ok"})
        self.assertEqual(self.api.json("GET", "/readyz"), {"status": "ok"})

    def test_a_key_is_for_one_job(self):
        file = self.api.upload(b"ACGT", "a.txt")
        job = {"model": "h3-dna", "input": file}
        key = {"Idempotency-Key": "once"}
        first = self.api.json("POST", "/v1/jobs", job, 201, key)["id"]
        self.assertEqual(self.api.json("POST", "/v1/jobs", job, 200, key)["id"], first)
        for more in ({"chunk": 5}, {"priority": 1}, {"trace": True}, {"task": "embed"}):
            self.refused(409, "once", "POST", "/v1/jobs", json.dumps({**job, **more}), **key)
        self.refused(400, "Idempotency-Key", "POST", "/v1/jobs", json.dumps(job),
                     **{"Idempotency-Key": "k" * 300})
        self.assertEqual(len(self.api.json("GET", "/v1/jobs")["jobs"]), 1)

    def test_pages(self):
        ids = [self.api.submit(b"ACGT") for _ in range(5)]
        seen, target = [], "/v1/jobs?limit=2"
        while target:
            page = self.api.json("GET", target)
            seen += [job["id"] for job in page["jobs"]]
            cursor = page.get("next_cursor")
            target = cursor and f"/v1/jobs?limit=2&cursor={cursor}"
        self.assertEqual(seen, ids[::-1])

    def test_the_example_with_curl(self):
        text = (SOURCE / "docs/api.md").read_text()
        script = text.partition("## With curl\n")[2].partition("```sh\n")[2].partition("```")[0]
        for name in ("file.json", "job.json", "scores.npy"):  # not into the source tree
            script = script.replace(name, str(self.path(name)))
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=SOURCE,
                              env={**os.environ, "LONGWAVE_SERVER": self.api.url}, timeout=PATIENCE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn('"state":"succeeded"', done.stdout)
        self.assertEqual(self.path("scores.npy").stat().st_size, 128 + 4 * 4096)
        self.assertEqual(self.api.json("GET", "/v1/jobs")["jobs"], [])
        self.assertEqual(self.api.json("GET", "/v1/files")["files"], [])

    def test_ranges(self):
        id = self.api.submit(self.genome(1000), chunk=300)
        wait_for("the job", lambda: self.api.job(id)["state"] == "succeeded")
        whole = self.api.output(id)
        target = f"/v1/jobs/{id}/output"
        size = len(whole)
        self.assertEqual(size, 128 + 4000)
        for asked, first, last in (("0-0", 0, 0), ("100-1500", 100, 1500), ("4000-", 4000, size - 1),
                                   ("-10", size - 10, size - 1), ("4000-99999", 4000, size - 1),
                                   ("1327-1329", 1327, 1329), ("-99999", 0, size - 1),
                                   (f"0-{10**20}", 0, size - 1)):
            with self.subTest(asked=asked):
                status, headers, got = self.api.request("GET", target,
                                                        headers={"Range": f"bytes={asked}"})
                self.assertEqual(status, 206)
                self.assertEqual(got, whole[first:last + 1])
                self.assertEqual(headers["Content-Range"], f"bytes {first}-{last}/{size}")
        sent = self.refused(416, "9999-", "GET", target, Range="bytes=9999-")
        self.assertEqual(sent["Content-Range"], f"bytes */{size}")
        for odd in ("bytes=5-2-3", "bytes=-", "bytes=a-b"):
            self.refused(400, odd, "GET", target, Range=odd)
        status, headers, got = self.api.request("GET", target, headers={"Range": "items=0-3"})
        self.assertEqual((status, headers["Content-Range"], got), (200, None, whole))
        status, headers, got = self.api.request("HEAD", target)
        self.assertEqual((status, headers["Content-Length"], got), (200, str(size), b""))

    def test_an_output_that_was_damaged_is_cut_short(self):
        id = self.api.submit(self.genome(1000), chunk=300)
        wait_for("the job", lambda: self.api.job(id)["state"] == "succeeded")
        whole, target = self.api.output(id), f"/v1/jobs/{id}/output"
        before, damaged = (next((self.folder / f"data/objects/jobs/{id}").glob(f"*/{k}.output"))
                           for k in (0, 1))
        content = bytearray(damaged.read_bytes())
        content[7] ^= 1
        damaged.write_bytes(content)
        first = 128 + before.stat().st_size
        last = first + len(content) - 1
        for headers in ({}, {"Range": f"bytes={first}-{last}"}, {"Range": f"bytes={first - 1}-"}):
            with self.assertRaises(http.client.IncompleteRead):
                self.api.request("GET", target, headers=headers)
        self.assertIn("its SHA-256 is", self.api.errors())
        status, _, got = self.api.request("GET", target, headers={"Range": f"bytes={last + 1}-"})
        self.assertEqual((status, got), (206, whole[last + 1:]))

    def test_no_output_before_the_end(self):
        ids = self.npy("ids.npy", [300])
        id = self.api.submit(ids.read_bytes(), "ids.npy", model=IDS.name)
        wait_for("the failure", lambda: self.api.job(id)["state"] == "failed")
        self.refused(409, "is failed", "GET", f"/v1/jobs/{id}/output")
        self.refused(404, "none", "GET", "/v1/jobs/none/output")
        self.refused(409, "failed already", "POST", f"/v1/jobs/{id}/cancel")

    def test_what_is_no_request(self):
        for request in (b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x00\xff" * 9,
                        b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 20000 + b"\r\n\r\n",
                        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
                        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                        # Where two ways of counting would give two ends.
                        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                        b"Content-Length: 3\r\n\r\n{} ",
                        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                        b"\r\nzz\r\n{}\r\n"):
            with self.subTest(request=request[:20]):
                self.assertRegex(self.raw(request).split(b"\r\n")[0],
                                 b" 431 " if len(request) > 20000 else b" 400 ")
        self.assertEqual(self.api.json("GET", "/healthz"), {"status": "ok"})

    def test_a_body_without_a_known_end_ends_the_connection(self):
        inner = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        for target in (b"/v1/files?name=a", b"/v1/jobs"):
            for encoding in (b"gzip", b"gzip, chunked", b"x\r\nTransfer-Encoding: chunked"):
                with self.subTest(target=target, encoding=encoding):
                    answer = self.raw(b"POST " + target + b" HTTP/1.1\r\nHost: x\r\n"
                                      b"Transfer-Encoding: " + encoding + b"\r\n\r\n" + inner)
                    head, _, body = answer.partition(b"\r\n\r\n")
                    self.assertIn(b" 501 ", head.split(b"\r\n")[0])
                    self.assertIn(b"Connection: close", head)
                    self.assertIn(b"application/problem+json", head)
                    self.assertIn("Transfer-Encoding", json.loads(body)["detail"])  # and no more
        self.assertEqual(self.api.json("GET", "/v1/files")["files"], [])

    def test_a_request_names_one_host(self):
        for hosts in (b"", b"Host: a\r\nHost: b\r\n"):
            answer = self.raw(b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
            self.assertIn(b" 400 ", answer.split(b"\r\n")[0])
            self.assertIn(b"header Host", answer)
        self.assertIn(b" 200 ", self.raw(b"GET /healthz HTTP/1.0\r\n\r\n").split(b"\r\n")[0])

    def test_no_path_leads_out(self):
        for target in (b"/v1/../../../etc/passwd", b"/..", b"/v1/files/../../jobs.sqlite",
                       b"/v1/jobs/%2e%2e%2f%2e%2e%2fjobs.sqlite", b"/v1/files/" + b"x" * 5000):
            with self.subTest(target=target):
                answer = self.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                head, _, body = answer.partition(b"\r\n\r\n")
                self.assertIn(b" 404 ", head.split(b"\r\n")[0])
                self.assertLess(len(json.loads(body)["detail"]), 300)
        for name in ("..", "%2e%2e", "a%0ab", "%ff"):
            self.api.request("POST", f"/v1/files?name={name}", b"x")
        kept = [path for path in self.folder.rglob("*") if path.is_file() and path.read_bytes() == b"x"]
        self.assertTrue(all(path.parent.name == "files" for path in kept), kept)

    def test_a_body_without_a_length_has_an_end(self):
        chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        answer = self.raw(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                          9 * chunk)
        self.assertIn(b" 413 ", answer.split(b"\r\n")[0])
        self.assertIn(b"body: more than 262144 bytes", answer)

    def test_an_upload_cut_short_leaves_nothing(self):
        for request in (b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nACGT",
                        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                        b"4\r\nACGT\r\n"):
            self.assertIn(b" 400 ", self.raw(request).split(b"\r\n")[0])
        files = self.folder / "data/objects/files"
        wait_for("no file", lambda: not files.exists() or not list(files.iterdir()))
        whole = (b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"4\r\nACGT\r\n0\r\n\r\n")
        self.assertIn(b" 201 ", self.raw(whole).split(b"\r\n")[0])


if __name__ == "__main__":
    unittest.main()
