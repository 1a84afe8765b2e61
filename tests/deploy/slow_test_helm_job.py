"""What `helm test` runs, run by hand: the script of the rendered chart, with the environment and arguments of its pod,
against processes that have the certificate, token and CURVE key that the chart made."""

import base64
import os
import subprocess
import unittest

from monitoring import tools
from cluster import PROGRAM, ClusterTest


class HelmJob(ClusterTest):
    def chart(self, values):
        self.rendered = tools.render(values)
        self.pod = tools.pick(self.rendered, "Pod", "-test")["spec"]["containers"][0]
        script = tools.pick(self.rendered, "ConfigMap", "-test")["data"]["test-job.sh"]
        (self.folder / "test-job.sh").write_text(script)

    def secret(self, name, key):
        """The path of a file with what the chart made."""
        path = self.folder / f"{name}-{key}"
        path.write_bytes(base64.b64decode(tools.pick(self.rendered, "Secret", f"-{name}")["data"][key]))
        return path

    def run_job(self, server, **more):
        """As the pod would; (exit status, standard output, standard error)."""
        values = {"LONGWAVE_SERVER": server.url.replace("127.0.0.1", "localhost"), **more}
        if any(one["name"] == "LONGWAVE_TOKEN" for one in self.pod["env"]):
            reference = next(one for one in self.pod["env"] if one["name"] == "LONGWAVE_TOKEN")["valueFrom"]["secretKeyRef"]
            values.setdefault("LONGWAVE_TOKEN", self.secret("auth", reference["key"]).read_text())
        self.assertLessEqual({one["name"] for one in self.pod["env"]}, set(values))
        shell, script, model, models = self.pod["command"]
        self.assertEqual((shell, script, models), ("/bin/sh", "/test/test-job.sh", "/models"))
        done = subprocess.run([shell, self.folder / "test-job.sh", model, self.folder / "models"],
                              env={"PATH": os.environ["PATH"], "LONGWAVE": PROGRAM, **values}, text=True,
                              capture_output=True, timeout=300, cwd="/")
        return done.returncode, done.stdout, done.stderr

    def test_with_what_the_chart_made(self):
        """TLS, tokens and CURVE; then what must not pass."""
        self.chart({"tls": {"enabled": True}})
        server = self.server(
            "--workers", 0, "--admin-token-file", self.secret("auth", "admin-token"),
            "--tls-cert", self.secret("tls", "tls.crt"), "--tls-key", self.secret("tls", "tls.key"),
            "--curve-key", self.secret("curve", "curve.key"))
        for _ in range(3):
            self.worker(server, "--curve-key", self.secret("curve", "curve.key"))
        trusted = {"SSL_CERT_FILE": str(self.secret("tls", "ca.crt"))}
        code, out, err = self.run_job(server, **trusted)
        self.assertEqual(code, 0, out + err)
        self.assertIn("passed: the result is that of longwave run, ", out)
        self.assertRegex(out, "[0-9]+ bytes\n$")

        code, out, err = self.run_job(server, LONGWAVE_TOKEN="somebody-elses-token-0", **trusted)
        self.assertNotEqual(code, 0, out)
        code, out, err = self.run_job(server, SSL_CERT_FILE=str(self.secret("auth", "admin-token")))
        self.assertNotEqual(code, 0, out)

    def test_a_result_that_differs(self):
        self.chart({"auth": {"mode": "none"}})
        server = self.server("--workers", 0)
        self.worker(server)
        code, out, err = self.run_job(server)
        self.assertEqual(code, 0, out + err)

        # What another kind of processor would round differently passes, and another result does not.
        for factor, passes in ((1 + 1e-4, True), (1.2, False)):
            program = self.folder / "longwave"
            program.write_text(f"""#!/bin/sh
"{PROGRAM}" "$@" || exit 1
[ "$1" = run ] || exit 0
for last; do :; done
python3 - "$last" <<'END'
import array, sys
data = open(sys.argv[1], "rb").read()
start = 10 + data[8] + 256 * data[9]
values = array.array("f", data[start:])
open(sys.argv[1], "wb").write(data[:start] + array.array("f", [value * {factor} for value in values]).tobytes())
END
""")
            program.chmod(0o755)
            code, out, err = self.run_job(server, LONGWAVE=str(program))
            self.assertEqual(code == 0, passes, out + err)
            self.assertIn("rounded differently" if passes else "is not that of longwave run", out + err)
            self.assertRegex(out, "51200 values, ")


if __name__ == "__main__":
    unittest.main()
