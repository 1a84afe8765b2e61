"""Every manifest of every value set against the schemas of Kubernetes 1.29 to 1.34 and of the operators."""

import copy
import unittest

import schemas
import tools


class SchemasTest(unittest.TestCase):
    def test_every_manifest_of_every_set(self):
        checked = 0
        for name in tools.value_sets():
            for version in schemas.VERSIONS:
                for manifest in tools.render_file(name, kube=version):
                    with self.subTest(values=name, kubernetes=version, kind=manifest["kind"],
                                      name=manifest["metadata"]["name"]):
                        self.assertEqual(schemas.errors(manifest, version), [])
                        checked += 1
        self.assertGreater(checked, 500)

    def test_helm_4_renders_the_same_objects(self):
        for name in tools.value_sets():
            with self.subTest(values=name):
                old, new = (tools.render_file(name, version=helm) for helm in tools.HELMS)
                names = lambda rendered: sorted((one["kind"], one["metadata"]["name"]) for one in rendered)
                self.assertEqual(names(old), names(new))
                for manifest in new:
                    self.assertEqual(schemas.errors(manifest, "1.34"), [])

    def test_what_is_wrong_is_found(self):
        """The check itself: one mutation of a good manifest at a time."""
        good = tools.pick(tools.render_file("defaults"), "Deployment", "-server")
        self.assertEqual(schemas.errors(good, "1.32"), [])
        for path, value, expected in (
                (("spec", "replica"), 1, "no such field"),
                (("spec", "replicas"), "1", "is not int"),
                (("spec", "replicas"), 1.5, "is not int"),
                (("spec", "selector"), None, "required"),
                (("spec", "template", "spec", "containers"), {}, "is not a list"),
                (("spec", "template", "spec", "containers"), [{"image": "x"}], "name: required"),
                (("spec", "template", "spec", "containers", 0, "livenessProbe", "httpGet"), {"path": "/"}, "port: required"),
                (("spec", "template", "spec", "containers", 0, "env"), [{"name": "A", "value": 1}], "is not string"),
                (("metadata", "labels"), {"a": True}, "is not string"),
                (("apiVersion",), "apps/v2", "no schema")):
            with self.subTest(path=path):
                bad = copy.deepcopy(good)
                at = bad
                for key in path[:-1]:
                    at = at[key]
                at[path[-1]] = value
                found = schemas.errors(bad, "1.32")
                self.assertTrue(found and expected in found[0], found)
        scaled = copy.deepcopy(tools.pick(tools.render_file("keda"), "ScaledObject", "-cpu"))
        scaled["spec"]["minReplicas"] = 1
        self.assertIn("no such field", schemas.errors(scaled, "1.32")[0])
        scaled = copy.deepcopy(tools.pick(tools.render_file("keda"), "ScaledObject", "-cpu"))
        scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleUp"]["policy"] = []
        self.assertIn("no such field", schemas.errors(scaled, "1.32")[0])
        monitor = copy.deepcopy(tools.pick(tools.render_file("tls"), "ServiceMonitor"))
        monitor["spec"]["endpoints"][0]["ports"] = "http"
        self.assertIn("no such field", schemas.errors(monitor, "1.32")[0])

    def test_fields_have_their_real_names(self):
        """Not those in camel case of the declarations."""
        for version in schemas.VERSIONS:
            declared, _ = schemas.kubernetes(version)
            fields = declared.types["ServiceSpec"][1]
            self.assertLessEqual({"clusterIP", "clusterIPs", "loadBalancerIP", "externalIPs"}, set(fields))
            self.assertNotIn("clusterIp", fields)

    def test_versions_differ(self):
        """Each version's schema is its own: a field that came with 1.31 is unknown to 1.30."""
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {
            "containers": [{"name": "x"}], "volumes": [{"name": "x", "image": {"reference": "x"}}]}}
        self.assertIn("no such field", schemas.errors(pod, "1.30")[0])
        self.assertEqual(schemas.errors(pod, "1.31"), [])


if __name__ == "__main__":
    unittest.main()
