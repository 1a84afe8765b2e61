"""Clients that are slow, cut off or too many; event streams; parts of an output that is not whole."""

import json
import socket
import subprocess
import time
import unittest

from cluster import PROGRAM, ClusterTest, Refusals, wait_for


class Clients(Refusals, ClusterTest):
    def test_slow_ones_are_told(self):
        self.api = self.server("--workers", 0, "--request-timeout", "0.5")
        for pieces, what in (
                ([b"GET /healthz HTT"], "the request's header"),
                ([b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"],
                 "the request's body"),
                ([b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nACGT"],
                 "a block of the upload")):
            with self.subTest(what=what):
                host, port = self.api.listen.split(":")
                with socket.create_connection((host, int(port)), timeout=60) as connection:
                    connection.sendall(pieces[0])  # and no more
                    answer = b""
                    while block := connection.recv(65536):
                        answer += block
                head, body = answer.split(b"\r\n\r\n", 1)
                self.assertIn(b" 408 ", head.split(b"\r\n")[0])
                self.assertIn(b"application/problem+json", head)
                self.assertEqual(json.loads(body)["detail"], f"{what} took more than 0.5 s")
        # A connection that asks for nothing goes without a word.
        host, port = self.api.listen.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            self.assertEqual(connection.recv(100), b"")
        files = self.folder / "data/objects/files"
        wait_for("no file", lambda: not files.exists() or not list(files.iterdir()))

    def test_an_upload_may_be_slow_but_steady(self):
        self.api = self.server("--workers", 0, "--request-timeout", "3")
        head = (b"POST /v1/files HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Length: 1048576\r\n\r\n")
        answer = self.raw(head, *[b"A" * (262144)] * 4, pause=1)
        self.assertIn(b" 201 ", answer.split(b"\r\n")[0])

    def test_too_many_are_turned_away(self):
        self.api = self.server("--workers", 0, "--connections", "5")
        host, port = self.api.listen.split(":")
        held = [socket.create_connection((host, int(port)), timeout=60) for _ in range(5)]
        for connection in held:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertIn(b" 200 ", connection.recv(1000))
        answer = self.raw()
        self.assertIn(b" 503 ", answer.split(b"\r\n")[0])
        self.assertIn("connections: 5 are open already",
                      json.loads(answer.split(b"\r\n\r\n", 1)[1])["detail"])
        for connection in held:
            connection.close()

        def served():
            try:
                return self.api.request("GET", "/healthz")[0] == 200
            except OSError:
                return False
        wait_for("room", served)

    def test_events(self):
        self.api = self.server()
        job = self.api.submit(self.genome(1000), chunk=300)
        events = self.api.events(f"/v1/jobs/{job}/events")  # follows to the end
        kinds = [kind for _, kind, _ in events]
        self.assertEqual(kinds[:1] + kinds[-1:], ["created", "succeeded"])
        self.assertEqual(kinds.count("committed"), 4)
        numbers = [number for number, _, _ in events]
        self.assertEqual(numbers, sorted(set(numbers)))
        for _, _, data in events:
            self.assertEqual((data["job"], data["tenant"]), (job, "default"))
        for at in (0, 2, len(events) - 1):
            self.assertEqual(self.api.events(f"/v1/jobs/{job}/events",
                                         **{"Last-Event-ID": str(numbers[at])}), events[at + 1:])
        # The log outlives the server.
        self.api.kill()
        self.api.start()
        self.assertEqual(self.api.events(f"/v1/jobs/{job}/events"), events)
        other = self.api.submit(b"ACGTACGT")
        self.api.over(other)
        everything = self.api.events("/v1/events?after=0&follow=0")
        self.assertEqual(everything[:len(events)], events)
        self.assertEqual({data["job"] for _, _, data in everything}, {job, other})
        self.refused(400, 'Last-Event-ID "x"', "GET", "/v1/events", **{"Last-Event-ID": "x"})
        self.refused(400, 'follow "2"', "GET", "/v1/events?follow=2")

    def test_a_stream_tells_what_happens_now(self):
        self.api = self.server()
        connection = self.api.connect()
        connection.request("GET", "/v1/events")
        response = connection.getresponse()
        job = self.api.submit(b"ACGTACGT")
        seen = []
        while "succeeded" not in seen:
            line = response.readline().decode()
            self.assertTrue(line, f"the stream ended after {seen}")
            if line.startswith("event: "):
                seen.append(line.split()[1])
            elif line.startswith("data: "):
                self.assertEqual(json.loads(line[6:])["job"], job)
        connection.close()
        self.assertEqual(seen[0], "created")
        started = time.monotonic()
        self.api.stop()
        self.assertLess(time.monotonic() - started, 30)

    def test_part_of_an_output(self):
        self.api = self.server("--workers", 0)
        bases = self.genome(4000)
        job = self.api.submit(bases, chunk=1000)
        wait_for("the plan", lambda: "tokens" in self.api.job(job)["progress"])
        target = f"/v1/jobs/{job}/output"
        self.refused(409, "is queued: it has no output", "GET", target)
        worker = self.worker(self.api)
        wait_for("a chunk", lambda: self.api.job(job)["progress"]["chunks_done"] >= 1)
        got, headers, first = self.api.request("GET", target, headers={"Range": "bytes=0-2127"})
        self.assertEqual(got, 206)
        self.assertEqual(headers["Content-Range"], "bytes 0-2127/16128")
        done = self.api.over(job)
        self.assertEqual(done["progress"]["chunk_states"],
                         {"committed": 4, "leased": 0, "waiting": 0})
        whole = self.api.output(job)
        self.assertEqual(len(whole), 16128)
        self.assertEqual(whole[:2128], first)
        _, headers, _ = self.api.request("HEAD", target)
        tag = headers["ETag"]
        self.assertRegex(tag, '^"[0-9a-f]{64}"$')
        got, _, body = self.api.request("GET", target, headers={"If-None-Match": tag})
        self.assertEqual((got, body), (304, b""))
        for if_range, want in ((tag, (206, 10)), ('"other"', (200, 16128))):
            got, _, body = self.api.request("GET", target, headers={"Range": "bytes=0-9",
                                                                    "If-Range": if_range})
            self.assertEqual((got, len(body)), want)
        worker.terminate()

    def test_files(self):
        self.api = self.server()
        ids = [self.api.upload(b"ACGT" * n, f"{n}.txt") for n in range(1, 6)]
        seen, target = [], "/v1/files?limit=2"
        while target:
            page = self.api.json("GET", target)
            seen += [file["id"] for file in page["files"]]
            cursor = page.get("next_cursor")
            target = cursor and f"/v1/files?limit=2&cursor={cursor}"
        self.assertEqual(seen, ids[::-1])
        file = self.api.json("GET", f"/v1/files/{ids[0]}")
        self.assertEqual((file["name"], file["bytes"], file["tenant"]), ("1.txt", 4, "default"))
        self.assertEqual(self.api.request("DELETE", f"/v1/files/{ids[0]}")[0], 204)
        self.refused(404, f'there is no file "{ids[0]}"', "GET", f"/v1/files/{ids[0]}")
        self.assertFalse((self.folder / "data/objects/files" / ids[0]).exists())
        for odd in ("..%2fjobs.sqlite", "%2e%2e", "a%00", "x" * 300):
            self.refused(404, "there is no", "GET", f"/v1/files/{odd}")

    def test_configuration(self):
        config = self.path("serve.toml", "# what all servers have\nworkers = 0\n"
                           'listen = "127.0.0.1:0"\nlease = 2.5\nconnections = 7\n')
        printed = subprocess.run([PROGRAM, "serve", "--config", config, "--connections", "9",
                                  "--print-config"], capture_output=True, text=True, timeout=60)
        self.assertEqual(printed.returncode, 0, printed.stderr)
        for line in ("workers=0", "lease=2.5", "connections=9", 'listen="127.0.0.1:0"'):
            self.assertIn(line, printed.stdout.split("\n"))
        again = self.path("again.toml", printed.stdout)
        twice = subprocess.run([PROGRAM, "serve", "--config", again, "--print-config"],
                               capture_output=True, text=True, timeout=60)
        self.assertEqual(twice.stdout, printed.stdout)
        self.api = self.server("--config", config)
        self.assertEqual(self.api.json("GET", "/readyz"), {"status": "ok"})
        for text, said in (("colour = 3\n", "colour: there is no such option"),
                           ("workers = many\n", "workers many: "),
                           ("workers = 1\nlease = 3\nworkers = 2\n", "workers: is there twice"),
                           ("workers = [1, 2]\n", "workers: must have one value"),
                           ("workers = 999\n", "--workers 999: must be 0 to 256"),
                           ("admin-token = x\n", "admin-token: there is no such option"),
                           ("[x]\nworkers = 1\n", "there are no sections")):
            with self.subTest(text=text):
                bad = self.path("bad.toml", text)
                done = subprocess.run(
                    [PROGRAM, "serve", "--config", bad, "--data", self.folder / "data2",
                     "--models", self.folder / "models"], capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 2)
                self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main()
