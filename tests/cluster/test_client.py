"""The client's commands where the way to the server is bad, or encrypted."""

import json
import os
import signal
import ssl
import subprocess
import unittest

from cluster import DNA, PROGRAM, ClusterTest, wait_for
from proxy import Proxy


class Client(ClusterTest):
    def proxy(self, server, **options):
        proxy = Proxy(server.listen, **options)
        self.addCleanup(proxy.close)
        return proxy

    def client(self, url, *arguments, environment=None, **options):
        return self.run_program(*arguments, env={**os.environ, "LONGWAVE_SERVER": url,
                                                 **(environment or {})}, **options)

    def ok(self, url, *arguments, **options):
        result = self.client(url, *arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout.decode()

    def refused(self, url, *arguments, said, **options):
        result = self.client(url, *arguments, **options)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr.decode(), r"\Alongwave: [^\n]+\n\Z")
        self.assertIn(said, result.stderr.decode())
        self.assertFalse(result.stdout)

    def test_lost_connections_cost_nothing(self):
        server = self.server()
        source = self.path("part.txt", self.genome(40000))
        # Of every two connections one is closed before the answer, or in the middle of it.
        proxy = self.proxy(server, cut=lambda number: number * 37 % 300 if number % 2 else None)
        id = self.ok(proxy.url, "submit", "h3-dna", source, "--chunk", 8192).strip()
        self.ok(proxy.url, "status", id, "--wait")
        jobs = server.json("GET", "/v1/jobs")["jobs"]
        self.assertEqual([job["id"] for job in jobs], [id])
        # Each connection gives at most 30,000 bytes of the output's 160,128.
        proxy = self.proxy(server, cut=lambda number: 30000)
        out = self.path("got.npy")
        self.ok(proxy.url, "result", id, "--out", out)
        self.assertEqual(out.read_bytes(), self.expected(source))
        self.assertGreaterEqual(proxy.seen, 6)
        self.assertEqual(sorted(path.name for path in self.folder.glob("got.npy*")), ["got.npy"])

    def test_a_server_that_is_started_again_is_waited_for(self):
        server = self.server()
        source = self.path("part.txt", self.genome(60000))
        id = self.ok(server.url, "submit", "h3-dna", source, "--chunk", 2000).strip()
        waiting = subprocess.Popen([PROGRAM, "status", id, "--wait", "--json", "--server",
                                    server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.processes.append(waiting)
        self.addCleanup(waiting.stderr.close)
        wait_for("a chunk", lambda: server.job(id)["progress"]["chunks_done"] >= 1)
        server.kill()
        server.start()
        answer, errors = waiting.communicate(timeout=120)
        self.assertEqual(waiting.returncode, 0, errors)
        self.assertEqual(json.loads(answer)["state"], "succeeded")

    def test_a_wait_ends_at_a_signal(self):
        server = self.server("--workers", 0)
        id = server.submit("ACGT")
        waiting = subprocess.Popen([PROGRAM, "status", id, "--wait", "--server", server.url],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.processes.append(waiting)
        self.addCleanup(waiting.stderr.close)
        line = waiting.stderr.readline()  # progress: it waits
        self.assertIn(b"tokens", line)
        waiting.send_signal(signal.SIGINT)
        self.assertEqual(waiting.wait(timeout=60), 130)

    def test_tls(self):
        server = self.server()
        key, certificate = self.path("key.pem"), self.path("cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out",
                        certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost"], check=True, stderr=subprocess.DEVNULL)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        proxy = self.proxy(server, tls=context)
        source = self.path("part.txt", self.genome(20000))
        id = self.ok(proxy.url, "submit", "h3-dna", source, "--wait", "--ca", certificate).strip()
        out = self.path("got.npy")
        self.ok(proxy.url, "result", id, "--out", out, "--ca", certificate)
        self.assertEqual(out.read_bytes(), self.expected(source))
        self.refused(proxy.url, "list", said="certificate verify failed")
        other = proxy.url.replace("localhost", "127.0.0.1")  # not what the certificate is of
        self.refused(other, "list", "--ca", certificate, said="certificate verify failed")
        self.refused(server.url, "list", "--ca", certificate, said="is not https")
        self.refused(proxy.url, "list", "--ca", source, said="part.txt")
        self.refused(proxy.url.replace("https", "http"), "list", said="http://localhost")

    def test_formats_and_tokens(self):
        server = self.server()
        fasta = self.path("fasta.dat", ">a\nACGT\nACGT\n")
        for format, tokens in (("auto", 8), ("fasta", 8), ("bytes", 13)):
            job = json.loads(self.ok(server.url, "submit", "h3-dna", fasta, "--format", format,
                                     "--wait", "--json"))
            self.assertEqual(job["progress"]["tokens"], tokens, format)
        self.refused(server.url, "submit", "h3-dna", fasta, "--format", "npy", said="is no npy file")
        self.refused(server.url, "submit", "h3-dna", fasta, "--format", "x", said="--format x")
        self.refused(server.url, "submit", "h3-dna", fasta, "--chunk", "0", said="chunk 0")
        self.refused(server.url, "submit", "h3-dna", fasta, "--window", "12345678901234567890",
                     said="12345678901234567890")
        self.refused(server.url, "list", "--token-file", "/nowhere", said="/nowhere")
        self.refused(server.url, "list", "--token-file", self.path("empty", "\n"), said="is empty")
        self.refused(server.url, "list", environment={"LONGWAVE_TOKEN": "a\nb"}, said="no token")
        self.refused(server.url, "result", "nothing", "--out", self.path("x.npy"),
                     said='there is no job "nothing"')
        self.assertFalse(self.path("x.npy").exists())

    def test_a_job_that_is_refused_leaves_nothing(self):
        server = self.server("--workers", 0)
        source = self.path("part.txt", self.genome(1000))

        def uploads():
            metrics = server.request("GET", "/metrics")[2].decode()
            return [line for line in metrics.splitlines() if 'route="/v1/files"' in line]
        self.refused(server.url, "submit", "h4", source, said='model "h4": must be one of h3-dna')
        self.assertEqual(uploads(), [])
        self.refused(server.url, "submit", "h3-dna", source, "--priority", 1000,
                     said="priority 1000")
        self.assertTrue(uploads())
        self.assertEqual(server.json("GET", "/v1/files")["files"], [])
        files = self.folder / "data/objects/files"
        self.assertEqual(list(files.iterdir()) if files.exists() else [], [])

    def test_delete(self):
        server = self.server()
        source = self.path("part.txt", self.genome(1000))
        kept, gone = (self.ok(server.url, "submit", "h3-dna", source, "--wait").strip()
                      for _ in range(2))
        inputs = {id: server.job(id)["input"] for id in (kept, gone)}
        self.assertEqual(self.ok(server.url, "delete", kept), "")
        self.assertEqual(self.ok(server.url, "delete", gone, "--input"), "")
        self.assertEqual(server.json("GET", "/v1/jobs")["jobs"], [])
        self.assertEqual([file["id"] for file in server.json("GET", "/v1/files")["files"]],
                         [inputs[kept]])
        self.refused(server.url, "delete", gone, said=f'there is no job "{gone}"')

    def test_delete_of_a_job_that_is_not_over(self):
        server = self.server("--workers", 0)
        id = server.submit("ACGT")
        self.refused(server.url, "delete", id, "--input", said=f"job {id} is queued")
        self.assertEqual(len(server.json("GET", "/v1/files")["files"]), 1)

    def test_an_output_is_a_file(self):
        for command in ("result", "trace"):
            for out in ("-", ""):
                self.refused("http://127.0.0.1:1", command, "x", "--out", out, said="--out")
        self.assertFalse(self.path("-").exists())

    def test_a_worker_tells_of_itself(self):
        server = self.server("--workers", 0)
        errors = self.path("metrics.err")
        with open(errors, "w") as file:
            self.processes.append(subprocess.Popen(
                [PROGRAM, "worker", "--connect", server.worker_listen, "--device", "cpu",
                 "--threads", "1", "--metrics-listen", "127.0.0.1:0", "--log-format", "json"],
                stderr=file))
        line = wait_for("the address", lambda: errors.read_text().partition("\n")[0])
        url = json.loads(line)["url"]
        server.listen, listen = url.removeprefix("http://"), server.listen
        try:
            status, headers, text = server.request("GET", "/metrics")
            self.assertEqual(status, 200)
            self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
            self.assertIn(b'longwave_device_healthy{device="cpu"} 1\n', text)
            self.assertEqual(server.request("GET", "/healthz")[0], 200)
            self.assertEqual(server.request("GET", "/nothing")[0], 404)
        finally:
            server.listen = listen


if __name__ == "__main__":
    unittest.main()
