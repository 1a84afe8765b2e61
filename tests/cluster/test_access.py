"""Who may ask: tokens, tenants, roles and TLS, against real servers."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import unittest

from cluster import PROGRAM, ClusterTest, Refusals, Server, wait_for

ADMIN = "the-admins-token-of-this-test"


def certificate(folder, name, days=2):
    """A certificate of 127.0.0.1 and its key, as two files."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days), "-keyout", key,
                    "-out", cert, "-subj", f"/CN={name}", "-addext",
                    "subjectAltName=IP:127.0.0.1,DNS:localhost"],
                   check=True, stderr=subprocess.DEVNULL)
    return cert, key


class Access(Refusals, ClusterTest):
    def guarded(self, *options, **more):
        secret = self.path("admin.token", ADMIN + "\n")
        self.api = self.server("--workers", 0, "--admin-token-file", secret, *options,
                               **{"token": ADMIN, **more})
        return self.api

    def token(self, name, tenant, role="user", **more):
        return self.api.json("POST", "/v1/tokens",
                             {"name": name, "tenant": tenant, "role": role, **more}, 201)

    def test_tokens(self):
        api = self.guarded()
        red = self.token("ann", "red")["token"]
        reader = self.token("bob", "red", "reader")["token"]
        blue = self.token("eve", "blue")["token"]
        self.assertRegex(red, r"^lw_[A-Za-z0-9_-]{43}$")
        api.token = red
        job = api.submit(b"ACGT")
        self.assertEqual(api.job(job)["tenant"], "red")
        self.assertEqual(api.job(job)["created_by"], "ann")
        api.token = reader
        self.assertEqual(api.job(job)["id"], job)
        self.refused(403, "role reader of token \"bob\": POST /v1/jobs/{job}/cancel needs role user",
                     "POST", f"/v1/jobs/{job}/cancel")
        self.refused(403, "role reader", "POST", "/v1/files?name=a", b"ACGT")
        self.refused(403, "needs role admin", "GET", "/v1/tokens")
        api.token = blue
        for method, target in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"),
                               ("GET", "/output"), ("GET", "/events")):
            self.refused(404, f'there is no job "{job}"', method, f"/v1/jobs/{job}{target}")
        self.assertEqual(api.json("GET", "/v1/jobs")["jobs"], [])
        api.token = None
        sent = self.refused(401, "token: none was given", "GET", "/v1/jobs")
        self.assertEqual(sent["WWW-Authenticate"], 'Bearer realm="longwave"')
        self.refused(401, "not known", "GET", "/v1/jobs", Authorization="Bearer " + "x" * 43)
        self.refused(401, "Bearer TOKEN", "GET", "/v1/jobs", Authorization="Basic eDp5")
        self.refused(401, "none was given", "POST", "/v1/files?name=a", b"ACGT")
        for target in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            self.assertEqual(api.request("GET", target)[0], 200, target)

    def test_tokens_outlive_the_server_and_end(self):
        api = self.guarded()
        made = self.token("ann", "red")
        api.stop()
        kept = b"".join(path.read_bytes() for path in (self.folder / "data").glob("jobs.sqlite*"))
        self.assertNotIn(made["token"].encode(), kept)
        api.start()
        api.token = made["token"]
        self.assertEqual(api.json("GET", "/v1/jobs")["jobs"], [])
        api.token = ADMIN
        self.assertEqual([token["name"] for token in api.json("GET", "/v1/tokens")["tokens"]],
                         ["ann"])
        self.assertEqual(api.request("DELETE", f"/v1/tokens/{made['id']}")[0], 204)
        api.token = made["token"]
        self.refused(401, "revoked", "GET", "/v1/jobs")

    def longwave(self, *arguments, token=ADMIN, code=0):
        done = subprocess.run([PROGRAM, *arguments, "--server", self.api.url], text=True, timeout=60,
                              env={**os.environ, "LONGWAVE_TOKEN": token}, capture_output=True)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def test_the_token_command(self):
        self.guarded()
        made = self.longwave("token", "create", "ann", "--tenant", "red", "--days", "3").strip()
        self.assertEqual(self.longwave("list", token=made), "")
        shown = json.loads(self.longwave("token", "create", "bob", "--role", "reader", "--json"))
        self.assertEqual((shown["tenant"], shown["role"]), ("default", "reader"))
        lines = self.longwave("token", "list").splitlines()
        self.assertEqual([line.split("  ")[1:] for line in lines],
                         [["red", "user", "ann"], ["default", "reader", "bob"]])
        self.assertEqual(len(self.longwave("token", "list", "--tenant", "red").splitlines()), 1)
        self.assertEqual(self.longwave("token", "revoke", lines[0].split()[0]), "")
        self.assertIn("not known", self.longwave("list", token=made, code=2))
        self.assertIn("needs role admin", self.longwave("token", "list", token=shown["token"], code=2))
        self.assertIn('role "boss"', self.longwave("token", "create", "x", "--role", "boss", code=2))
        self.assertIn("no token", self.longwave("token", "revoke", "0123", code=2))

    def test_what_a_server_asks_for(self):
        (self.folder / "data").mkdir()
        for options, said in (
                (["--auth", "some"], "--auth some: must be none or tokens"),
                (["--auth", "none", "--admin-token-file", "x"], "--admin-token-file x"),
                (["--admin-token-file", self.folder / "none"], "cannot be read"),
                (["--admin-token-file", self.path("short", "abc\n")], "a token of 3 bytes"),
                (["--tls-cert", "x"], "--tls-cert and --tls-key: give both or none"),
                (["--tls-cert", self.path("a.crt", "x"), "--tls-key", self.path("a.key", "y")],
                 f"--tls-cert {self.folder}/a.crt: ")):
            with self.subTest(options=options):
                done = subprocess.run(
                    [PROGRAM, "serve", "--data", self.folder / "data", "--models",
                     self.folder / "models", "--listen", "127.0.0.1:0", *map(str, options)],
                    capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(said, done.stderr)
        # Whoever listens where others can connect asks for tokens, if not told otherwise.
        for auth, status in (([], 401), (["--auth", "none"], 200)):
            server = Server(self.folder, "--workers", 0, "--listen", "0.0.0.0:0", *auth)
            self.addCleanup(lambda: server.process.poll() is None and server.kill())
            server.listen = server.listen.replace("0.0.0.0", "127.0.0.1")
            self.assertEqual(server.request("GET", "/v1/jobs")[0], status)
            if auth:
                self.assertIn("--auth none: whoever can connect", server.errors())
            else:
                self.assertIn("there is no token yet", server.errors())
            server.stop()

    def test_tls(self):
        cert, key = certificate(self.folder, "first")
        api = self.guarded("--tls-cert", cert, "--tls-key", key, "--request-timeout", "20", ca=cert)
        self.assertTrue(api.url.startswith("https://"))
        content = os.urandom(3 << 20)
        file = api.upload(content, "big.bin")
        self.assertEqual(api.json("GET", f"/v1/files/{file}")["bytes"], len(content))
        self.refused(404, "there is no job", "GET", "/v1/jobs/0123456789abcdef")
        self.refused(413, "body", "POST", "/v1/jobs", b" " * 270000)
        # Not another's certificate, no old version of the protocol, no plain text.
        api.tls = ssl.create_default_context()
        with self.assertRaises(ssl.SSLCertVerificationError):
            api.request("GET", "/healthz")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        api.tls = old
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            api.request("GET", "/healthz")
        api.tls = None
        with self.assertRaises((http.client.HTTPException, ConnectionError)):
            api.request("GET", "/healthz")
        api.tls = ssl.create_default_context(cafile=cert)
        self.assertEqual(api.request("GET", "/healthz")[0], 200)

    def served(self, api):
        """The certificate that a new connection sees, as PEM."""
        host, port = api.listen.split(":")
        return ssl.get_server_certificate((host, int(port))).strip()

    def test_a_new_certificate_without_a_restart(self):
        cert, key = certificate(self.folder, "served")
        api = self.guarded("--tls-cert", cert, "--tls-key", key, ca=cert)
        open_before = api.connect()
        open_before.request("GET", "/healthz")
        self.assertEqual(open_before.getresponse().read(), b'{"status":"ok"}\n')
        for how in ("look", "signal"):
            new_cert, new_key = certificate(self.folder, how)
            wanted = new_cert.read_text().strip()
            os.replace(new_key, key)
            os.replace(new_cert, cert)
            if how == "signal":
                api.process.send_signal(signal.SIGHUP)
            wait_for(f"the new certificate ({how})", lambda: self.served(api) == wanted)
        # A pair that does not fit is said and not taken.
        cert.write_text(certificate(self.folder, "odd")[0].read_text())
        api.process.send_signal(signal.SIGHUP)
        wait_for("the complaint", lambda: "is not the key of --tls-cert" in api.errors())
        self.assertEqual(self.served(api), wanted)
        open_before.request("GET", "/healthz")
        self.assertEqual(open_before.getresponse().status, 200)
        open_before.close()


if __name__ == "__main__":
    unittest.main()
