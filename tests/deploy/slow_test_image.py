"""The CPU image: what is in it, and that server, worker and `helm test`'s script run in it as a pod's containers do."""

import os
import re
import subprocess
import unittest

from image import Image
from monitoring import tools
from cluster import PATIENCE, ClusterTest


class ImageTest(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.image = Image()
        cls.addClassCleanup(cls.image.close)
        cls.image.build()

    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        self.data.mkdir()
        os.chmod(self.folder, 0o755)
        os.chown(self.data, 10001, 10001)

    def start(self, *arguments, environment=None, **options):
        process = subprocess.Popen(self.image.command(self.data, *arguments), env={"PATH": os.environ["PATH"], **(environment or {})},
                                   text=True, **options)
        self.processes.append(process)
        return process

    def out(self, *arguments, code=0, **options):
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, code, out)
        return out

    def test_what_it_says_of_itself(self):
        config = self.image.config()
        self.assertEqual(config["User"], "10001:10001")
        self.assertEqual(config["Entrypoint"], ["/usr/bin/longwave"])  # no shell: SIGTERM reaches the program
        self.assertEqual(config["Labels"]["org.opencontainers.image.revision"], "test")
        version = tools.yaml.safe_load((tools.CHART / "Chart.yaml").read_text())["appVersion"]
        self.assertEqual(config["Labels"]["org.opencontainers.image.version"], version)
        self.assertIn(version, self.out("longwave", "--version"))

    def test_it_holds_only_what_runs(self):
        installed = self.out("dpkg-query", "-W", "-f", "${Package}\n").split()
        self.assertEqual([name for name in installed if re.search("-dev$|^g[+]{2}|^gcc-[0-9]+$|cmake|ninja|python", name)], [])
        for path in ("src", "build", "var/lib/apt/lists/lock", "root/.cache"):
            self.assertFalse((self.image.root / path).exists(), path)
        self.assertEqual(sorted(path.name for path in (self.image.root / "models").iterdir()), ["h3-dna", "h3-text"])

    def test_nobody_can_write_or_become_more(self):
        said = self.out("sh", "-c", "id; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; touch /usr/bin/x; touch /models/x; "
                                    "touch /tmp/x && touch /data/x && echo written")
        self.assertIn("uid=10001 gid=10001 groups=10001", said)
        self.assertRegex(said, r"CapEff:\s+0000000000000000")
        self.assertRegex(said, r"CapBnd:\s+0000000000000000")
        self.assertRegex(said, r"NoNewPrivs:\s+1")
        self.assertEqual(said.count("Read-only file system"), 2, said)
        self.assertTrue(said.endswith("written\n"), said)

    def test_server_worker_and_helm_test(self):
        token = "an-administrators-token"
        server = self.start("longwave", "serve", "--listen=127.0.0.1:0", "--worker-listen=tcp://127.0.0.1:0", "--data=/data",
                            "--objects=file:///data/objects", "--models=/models", "--workers=0", "--auth=tokens",
                            environment={"LONGWAVE_ADMIN_TOKEN": token}, stdout=subprocess.PIPE)
        url = server.stdout.readline().split()[-1]
        endpoint = server.stdout.readline().split()[-1]
        worker = self.start("longwave", "worker", f"--connect={endpoint}", "--device=cpu", "--threads=1")
        rendered = tools.render({"curve": {"enabled": False}})
        script = tools.pick(rendered, "ConfigMap", "-test")["data"]["test-job.sh"]
        (self.data / "test-job.sh").write_text(script)
        _, _, model, models = tools.pick(rendered, "Pod", "-test")["spec"]["containers"][0]["command"]
        said = self.out("sh", "/data/test-job.sh", model, models,
                        environment={"LONGWAVE_SERVER": url, "LONGWAVE_TOKEN": token})
        self.assertIn("passed: the result is that of longwave run, ", said)
        worker.terminate()
        self.assertEqual(worker.wait(timeout=PATIENCE), 0)
        server.terminate()
        self.assertEqual(server.wait(timeout=PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
