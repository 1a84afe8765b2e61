"""The real helm against an API server: what an upgrade keeps, what a rollback brings back, what stays behind."""

import base64
import pathlib
import subprocess
import tempfile
import unittest

import yaml

import fake_api
import schemas
import tools


class UpgradeTest(unittest.TestCase):
    def setUp(self):
        self.cluster = fake_api.Cluster()
        self.addCleanup(self.cluster.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.config = self.folder / "kubeconfig"
        self.config.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": self.cluster.url}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "team"}}],
            "users": [{"name": "x", "user": {}}]}))

    def helm(self, *arguments, version="3", check=True):
        extra = ["--disable-openapi-validation"] if arguments[0] in ("install", "upgrade") else []
        return tools.helm(*arguments, "--namespace", "team", "--kubeconfig", self.config, *extra, version=version, check=check)

    def put(self, command, values=None, name="lw", version="3", check=True, chart=tools.CHART):
        path = self.folder / "values.yaml"
        path.write_text(yaml.safe_dump(values or {}))
        return self.helm(command, name, chart, "--values", path, version=version, check=check)

    def secrets(self):
        return {name: one["data"] for name, one in self.cluster.of_kind("Secret").items()}

    def kept(self):
        """What no upgrade may change: generated secrets, selectors, addresses, volumes."""
        deployments = self.cluster.of_kind("Deployment")
        return (self.secrets(), {name: one["spec"]["selector"] for name, one in deployments.items()},
                {name: one["spec"]["clusterIP"] for name, one in self.cluster.of_kind("Service").items()},
                {name: one["spec"]["volumeName"] for name, one in self.cluster.of_kind("PersistentVolumeClaim").items()})

    def test_secrets_and_immutable_fields_stay(self):
        for version in tools.HELMS:
            with self.subTest(helm=version):
                name = f"lw{version}"
                self.put("install", {"tls": {"enabled": True}}, name=name, version=version)
                before = self.kept()
                self.assertGreaterEqual(len(before[0]), 3)
                # The same again, then what people change.
                for values in ({}, {"image": {"tag": "0.2.0"}, "server": {"drainSeconds": 20}},
                               {"pools": {"cpu": {"replicas": 5, "resources": {"limits": {"cpu": "4"}}}}, "commonLabels": {"a": "b"}},
                               {"logFormat": "text", "server": {"workers": 1, "extraEnv": [{"name": "A", "value": "b"}]}}):
                    self.put("upgrade", {"tls": {"enabled": True}, **values}, name=name, version=version)
                    self.assertEqual(self.kept(), before, values)
                    self.assertEqual(self.cluster.refusals, [])
                worker = self.cluster.of_kind("Deployment")[f"{name}-longwave-worker-cpu"]
                self.assertEqual(worker["spec"]["replicas"], 1)
                self.helm("uninstall", name, version=version)
                self.cluster.objects.clear()

    def test_an_upgrade_without_change_starts_no_pod_again(self):
        self.put("install")
        templates = lambda: {name: one["spec"]["template"] for name, one in self.cluster.of_kind("Deployment").items()}
        before = templates()
        self.put("upgrade")
        self.assertEqual(templates(), before)

    def test_scaling_by_an_hpa_then_by_keda(self):
        """The ScaledObject comes before the HPA goes, and KEDA takes no workload that an HPA scales."""
        s3 = {"objects": {"type": "s3", "s3": {"bucket": "b", "existingSecret": "s3"}},
              "autoscaling": {"prometheusUrl": "http://prometheus:9090"}}
        self.put("install", {**s3, "pools": {"cpu": {"autoscaling": {"type": "hpa"}}}})
        for kind, other in (("keda", "hpa"), ("hpa", "keda")):
            self.put("upgrade", {**s3, "pools": {"cpu": {"autoscaling": {"type": kind}}}})
            kinds = {"hpa": "HorizontalPodAutoscaler", "keda": "ScaledObject"}
            self.assertEqual(len(self.cluster.of_kind(kinds[kind])), 1)
            self.assertEqual(self.cluster.of_kind(kinds[other]), {})
        hpa = self.cluster.of_kind("HorizontalPodAutoscaler")["lw-longwave-worker-cpu"]
        del hpa["metadata"]["annotations"]
        failed = self.put("upgrade", {**s3, "pools": {"cpu": {"autoscaling": {"type": "keda"}}}}, check=False)
        self.assertIn("already managed by the hpa", failed.stderr)

    def test_to_recreate_and_back(self):
        strategy = lambda: self.cluster.of_kind("Deployment")["lw-longwave-worker-cpu"]["spec"]["strategy"]
        self.put("install")
        before = strategy()
        self.put("upgrade", {"pools": {"cpu": {"strategy": {"type": "Recreate"}}}})
        self.assertEqual(strategy(), {"type": "Recreate"})
        self.put("upgrade", {"pools": {"cpu": {"strategy": {"type": "RollingUpdate"}}}})
        self.assertEqual(strategy(), before)

    def test_the_key_of_the_token(self):
        """A key of one's own at once; another key later takes the token that is there over, whatever it is called."""
        token = lambda: self.secrets()["lw-longwave-auth"]
        self.put("install", {"auth": {"adminTokenKey": "first"}})
        made = token()["first"]
        self.assertEqual(token(), {"first": made})
        self.put("upgrade", {"auth": {"adminTokenKey": "second"}})
        self.assertEqual(token(), {"first": made, "second": made})
        self.put("upgrade", {"auth": {"adminTokenKey": "first"}})
        self.assertEqual(token(), {"first": made, "second": made})
        self.helm("uninstall", "lw")
        self.put("install", {"auth": {"adminTokenKey": "third"}})
        self.assertEqual(token()["third"], made)

    def test_every_set_installs_and_upgrades(self):
        """From the defaults to each set and back, but for what cannot be changed: the volume's class and modes."""
        for name, path in tools.value_sets().items():
            with self.subTest(values=name):
                values = yaml.safe_load(path.read_text()) or {}
                values.setdefault("curve", {"existingSecret": "curve"})
                self.put("install", {"curve": {"existingSecret": "curve"}})
                secrets = self.secrets()
                if name == "shared":
                    del values["persistence"]["storageClass"]
                    values["persistence"].update(accessModes=["ReadWriteMany"], existingClaim="theirs")
                self.put("upgrade", values)
                self.put("upgrade", {"curve": {"existingSecret": "curve"}})
                for key, content in secrets.items():
                    self.assertEqual(self.secrets()[key], content)
                self.assertEqual(self.cluster.refusals, [])
                self.helm("uninstall", "lw")
                self.cluster.objects.clear()

    def test_a_volume_cannot_change_its_class(self):
        """The server's own check works: what is immutable is refused."""
        self.put("install")
        result = self.put("upgrade", {"persistence": {"storageClass": "fast"}}, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("spec.storageClassName is immutable", result.stderr)

    def test_rollback(self):
        self.put("install")
        before = self.kept()
        image = lambda: self.cluster.of_kind("Deployment")["lw-longwave-server"]["spec"]["template"]["spec"]["containers"][0]["image"]
        self.put("upgrade", {"image": {"tag": "bad"}, "pools": {"extra": {}}})
        self.assertEqual(image(), "longwave:bad")
        self.assertIn("lw-longwave-worker-extra", self.cluster.of_kind("Deployment"))
        self.helm("rollback", "lw", "1")
        self.assertEqual(image(), "longwave:0.1.0")
        self.assertEqual(self.kept(), before)

    def test_uninstall_keeps_data_and_secrets_and_the_next_install_finds_them(self):
        self.put("install")
        secrets = self.secrets()
        self.helm("uninstall", "lw")
        self.assertEqual({one["kind"] for one in self.cluster.objects.values()}, {"Secret", "PersistentVolumeClaim"})
        self.put("install")
        self.assertEqual(self.secrets(), secrets)

    def test_notes_print_three_commands(self):
        text = self.put("install", {"curve": {"existingSecret": "x"}}).stdout
        notes = text[text.index("NOTES:"):]
        commands = [line for line in notes.splitlines() if line.startswith("  ") and "helm test" not in line]
        self.assertEqual(len(commands), 3, commands)
        for command, word in zip(commands, ("kubectl", "export", "longwave submit")):
            self.assertIn(word, command)
            subprocess.run(["bash", "-n"], input=command, text=True, check=True)
        # The real kubectl reads the token as the second command says.
        template = commands[1].split("go-template='")[1].split("'")[0]
        token = subprocess.run([tools.tool("kubectl", "v34"), "--kubeconfig", self.config, "-n", "team", "get", "secret",
                                "lw-longwave-auth", "-o", f"go-template={template}"], text=True, capture_output=True, check=True)
        self.assertRegex(token.stdout, "^[A-Za-z0-9]{48}$")

    def test_notes_trust_the_certificate_that_was_made(self):
        """The third command as bash reads it, with the real kubectl and openssl for `longwave`."""
        text = self.put("install", {"tls": {"enabled": True}}).stdout
        command, = [line for line in text.splitlines() if "longwave submit" in line]
        trusted = command.split(" --ca ")[1].replace("kubectl", f"{tools.tool('kubectl', 'v34')} --kubeconfig {self.config}")
        certificate = self.folder / "tls.crt"
        certificate.write_bytes(base64.b64decode(self.secrets()["lw-longwave-tls"]["tls.crt"]))
        subprocess.run(["bash", "-c", f"openssl verify -verify_ip 127.0.0.1 -CAfile {trusted} {certificate}"], check=True,
                       capture_output=True)

    def test_notes_tell_when_nobody_outside_may_call(self):
        closed = "networkPolicy.clients lets only pods of this namespace"
        ingress = {"ingress": {"enabled": True, "host": "x.y"}}
        for values, wanted in (({}, False), (ingress, True), ({"server": {"service": {"type": "NodePort"}}}, True),
                               ({**ingress, "networkPolicy": {"enabled": False}}, False),
                               ({**ingress, "networkPolicy": {"clients": [{"namespaceSelector": {}}]}}, False)):
            with self.subTest(values=values):
                self.assertEqual(closed in self.put("install", values).stdout, wanted)
                self.cluster.objects.clear()

    def test_the_check_of_fields_is_on(self):
        broken = schemas.errors({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "datas": {}}, "1.32")
        self.assertEqual(len(broken), 1)


if __name__ == "__main__":
    unittest.main()
