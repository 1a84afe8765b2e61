"""What must not render: each wrong value is refused, with a line that names it. The reason for every rule of _checks.tpl."""

import unittest

import schemas
import tools
from tools import nested

# What makes a value set valid but for what is tested.
S3 = {"objects": {"type": "s3", "s3": {"bucket": "b", "existingSecret": "s3"}}}
POSTGRESQL = {"store": {"type": "postgresql", "postgresql": {"host": "pg", "existingSecret": "pg"}}}
KEDA_URL = {"autoscaling": {"prometheusUrl": "http://prometheus:9090"}}


def pool(**values):
    return {"pools": {"cpu": values}}


# (values, what the message has)
COMBINATIONS = [
    ({"server": {"replicas": 2}}, "several servers need store.type postgresql"),
    ({"server": {"replicas": 2}, **POSTGRESQL}, "several servers need objects.type s3"),
    ({"server": {"replicas": 2}, **S3}, "several servers need store.type postgresql"),
    ({"persistence": {"accessModes": ["ReadWriteOncePod"]}}, "ReadWriteOncePod"),
    ({"store": {"type": "postgresql", "postgresql": {"host": "pg"}}}, "store.postgresql.existingSecret"),
    ({"store": {"type": "postgresql", "postgresql": {"existingSecret": "pg"}}}, "store.postgresql.host"),
    ({"objects": {"type": "s3"}}, "objects.s3.bucket"),
    ({"objects": {"type": "s3", "s3": {"bucket": "b"}}}, "objects.s3.existingSecret"),
    ({"models": {"source": "claim"}}, "models.existingClaim"),
    ({"models": {"source": "copy", "copy": {"image": "x"}}}, "models.copy.command"),
    ({"server": {"drainSeconds": 45}}, "server.terminationGracePeriodSeconds 45"),
    ({"server": {"replicas": 2, "drainSeconds": 40}, **POSTGRESQL, **S3}, "more than server.drainSeconds, 40, and 5 before it"),
    ({"auth": {"mode": "none"}, "ingress": {"enabled": True, "host": "x.y"}}, "auth.mode none"),
    ({"ingress": {"enabled": True}}, "ingress.host"),
    (pool(autoscaling={"type": "keda"}), "autoscaling.prometheusUrl"),
    (pool(autoscaling={"type": "hpa", "minReplicas": 0}), "an HPA cannot scale to zero"),
    ({**KEDA_URL, **pool(autoscaling={"type": "keda", "minReplicas": 9})}, "minReplicas 9 is more than maxReplicas 8"),
    (pool(device="cuda:0"), "device cuda:0 needs gpus"),
    (pool(gpus=1), "gpus 1 with device cpu"),
    ({"pools": {"p" * 48: {}}}, "the name is too long"),
    (pool(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone"}]}}), "pools.cpu.affinity.podAffinity"),
    ({"server": {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1}]}}}}, "server.affinity.podAffinity"),
]

# (value, wrong content): what the schema says.
WRONG = [
    ("replicas", 3), ("server.replica", 3), ("server.replicas", 0), ("server.replicas", "2"), ("server.replicas", 1.5),
    ("server.workers", -1), ("server.workers", 257), ("server.service.type", "ExternalName"),
    ("server.service.port", 0), ("server.service.port", 65536), ("server.resources", "small"),
    ("server.extraArgs", "--x"), ("server.extraArgs", [1]), ("server.config", {"lease": 6}),
    ("server.image", {"name": "x"}), ("server.drainSeconds", "30s"), ("logFormat", "xml"), ("ipFamily", "dual"),
    ("image.pullPolicy", "Sometimes"), ("image.digest", "0123"), ("image.name", "x"),
    ("fullnameOverride", "x" * 41), ("fullnameOverride", "Upper"), ("store.type", "mysql"), ("store.postgresql.password", "x"),
    ("store.postgresql.sslmode", "on"), ("objects.type", "gcs"), ("objects.s3.accessKey", "x"),
    ("objects.s3.endpoint", "minio:9000"), ("objects.s3.prefix", "/a"), ("persistence.size", "20"),
    ("persistence.accessModes", []), ("persistence.accessModes", ["ReadOnlyMany"]), ("persistence.enabled", False),
    ("models.source", "s3"), ("models.path", "models"), ("auth.mode", "basic"), ("auth.adminToken", "secret"),
    ("tls.enabled", "yes"), ("tls.key", "x"), ("curve.enabled", 1), ("pools", []), ("pools.cpu", 3),
    ("pools.CPU", {}), ("pools.a_b", {}), ("pools.cpu.replica", 1), ("pools.cpu.replicas", -1),
    ("pools.cpu.device", "gpu"), ("pools.cpu.device", "cuda"), ("pools.cpu.collective", "mpi"),
    ("pools.cpu.nccl", {"NCCL_DEBUG": 1}), ("pools.cpu.autoscaling.type", "vpa"),
    ("pools.cpu.autoscaling.target", 1), ("pools.cpu.autoscaling.maxReplicas", 0),
    ("pools.cpu.autoscaling.targetDrainSeconds", 0), ("poolDefaults.gpus", 17),
    ("autoscaling.prometheusUrl", "prometheus:9090"), ("networkPolicy.dns.ports", ["53"]), ("networkPolicy.objects.ports", ["443"]),
    ("networkPolicy.egress", []), ("ingress.hosts", []), ("metrics.interval", "often"),
    ("metrics.serviceMonitor", True), ("metrics.dashboards.labels", {"a": 1}), ("test.image", "x"),
    ("podSecurityContext", []), ("commonLabels", {"a": True}),
]


class RefusedTest(unittest.TestCase):
    def refused(self, values, wanted, version="3"):
        result = tools.template(values, check=False, version=version)
        self.assertNotEqual(result.returncode, 0, result.stdout[-500:])
        self.assertIn(wanted, result.stderr)
        self.assertEqual(result.stdout, "")

    def test_combinations(self):
        for values, wanted in COMBINATIONS:
            with self.subTest(values=values):
                self.refused(values, wanted)

    def test_values(self):
        for path, value in WRONG:
            with self.subTest(path=path, value=value):
                self.refused(nested(path, value), path.rsplit(".", 1)[-1])

    def test_helm_4_too(self):
        for path, value in WRONG[::6]:
            with self.subTest(path=path, value=value):
                self.refused(nested(path, value), path.rsplit(".", 1)[-1], version="4")
        for values, wanted in COMBINATIONS[::6]:
            with self.subTest(values=values):
                self.refused(values, wanted, version="4")

    def test_old_kubernetes(self):
        result = tools.template(kube="1.28", check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("1.28", result.stderr)

    def test_no_value_reaches_what_it_is_not_for(self):
        """A value that is wrong inside of what Kubernetes defines passes the chart, and the schemas find it."""
        rendered = tools.render({"server": {"nodeSelector": {"a": "b"}, "resources": {"limit": {}}}})
        found = [error for one in rendered for error in schemas.errors(one, "1.32")]
        self.assertEqual(len(found), 1, found)
        self.assertIn("resources.limit: there is no such field", found[0])


if __name__ == "__main__":
    unittest.main()
