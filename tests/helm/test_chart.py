"""The chart's objects, value by value: what must not be there first, then what must."""

import base64
import re
import subprocess
import tempfile
import unittest

import tools
from tools import pick, pod_specs, render, render_file

CURVE = {"curve": {"existingSecret": "curve"}}


def arguments(container):
    return dict(argument.removeprefix("--").split("=", 1) for argument in container["args"] if "=" in argument)


def environment(container):
    return {one["name"]: one.get("value") or one["valueFrom"] for one in container["env"]}


class NeverTest(unittest.TestCase):
    """What no value set may render."""

    def each(self):
        for name in tools.value_sets():
            for one in render_file(name):
                yield name, one

    def test_no_rights_no_host_no_root(self):
        for name, one in self.each():
            with self.subTest(values=name, object=one["metadata"]["name"]):
                self.assertNotIn(one["kind"], ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Namespace",
                                               "CustomResourceDefinition", "PersistentVolume", "StorageClass"))
                self.assertEqual(one["metadata"].get("namespace"), "team")
                text = str(one)
                for word in ("hostPath", "hostNetwork", "hostPID", "hostIPC", "hostPort", "privileged"):
                    self.assertNotIn(word, text)

    def test_pod_security_restricted(self):
        """The profile's rules, as Kubernetes has them."""
        volumes = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI", "csi", "ephemeral"}
        seen = 0
        for name in tools.value_sets():
            for owner, pod in pod_specs(render_file(name)):
                with self.subTest(values=name, pod=owner):
                    context = pod["securityContext"]
                    self.assertIs(context["runAsNonRoot"], True)
                    self.assertNotEqual(context["runAsUser"], 0)
                    self.assertEqual(context["seccompProfile"]["type"], "RuntimeDefault")
                    self.assertIs(pod["automountServiceAccountToken"], False)
                    for volume in pod["volumes"]:
                        self.assertLessEqual(set(volume) - {"name"}, volumes)
                    for container in pod["containers"] + pod.get("initContainers", []):
                        seen += 1
                        context = container["securityContext"]
                        self.assertIs(context["allowPrivilegeEscalation"], False)
                        self.assertIs(context["readOnlyRootFilesystem"], True)
                        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                        self.assertIn("requests", container["resources"])
                        self.assertIn("memory", container["resources"]["limits"])
        self.assertGreater(seen, 20)

    def test_no_secret_outside_of_secrets(self):
        """No generated or referenced secret is an argument, a plain variable or in a ConfigMap."""
        for name in tools.value_sets():
            rendered = render_file(name)
            contents = [base64.b64decode(value).decode() for one in rendered if one["kind"] == "Secret"
                        for key, value in one["data"].items() if not key.endswith(".crt")]
            others = str([one for one in rendered if one["kind"] != "Secret"])
            for content in contents:
                self.assertGreaterEqual(len(content), 40)
                self.assertNotIn(content, others)
            for owner, pod in pod_specs(rendered):
                for container in pod["containers"]:
                    for variable in container["env"]:
                        if re.search("PASSWORD|TOKEN|SECRET|ACCESS_KEY", variable["name"]):
                            self.assertIn("secretKeyRef", variable["valueFrom"], (name, owner))

    def test_workers_see_neither_the_job_store_nor_the_tokens(self):
        for name in tools.value_sets():
            for owner, pod in pod_specs(render_file(name)):
                if "-worker-" not in owner:
                    continue
                container = pod["containers"][0]
                for mount in container["volumeMounts"]:
                    self.assertNotEqual(mount["mountPath"], "/data")
                    if mount["name"] == "data":
                        self.assertEqual(mount["subPath"], "objects")
                self.assertNotIn("PGPASSWORD", environment(container))
                self.assertNotIn("auth", [volume["name"] for volume in pod["volumes"]])

    def test_numbers_are_whole(self):
        """1000000 must not become 1e+06, which Kubernetes refuses."""
        text = tools.template({"server": {"drainSeconds": 1000000, "terminationGracePeriodSeconds": 2000000},
                               "pools": {"cpu": {"replicas": 1000000, "terminationGracePeriodSeconds": 3000000}}, **CURVE}).stdout
        self.assertNotRegex(text, r"\de\+\d")
        self.assertIn("--drain=1000000", text)

    def test_off_is_off(self):
        rendered = render_file("bare")
        self.assertEqual(tools.kinds(rendered), ["Deployment", "PersistentVolumeClaim", "Service", "ServiceAccount"])
        container = pick(rendered, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        for name in ("admin-token-file", "curve-key", "tls-cert", "config"):
            self.assertNotIn(name, arguments(container))
        self.assertNotIn("Secret", tools.kinds(render_file("shared")))
        for name in ("defaults", "gpu", "external"):
            self.assertFalse({"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject", "HorizontalPodAutoscaler",
                              "Ingress"} & set(tools.kinds(render_file(name))), name)

    def test_a_pool_that_is_off_or_null(self):
        for cpu in (None, {"enabled": False}):
            rendered = render({"pools": {"cpu": cpu}, **CURVE})
            self.assertNotIn("worker-cpu", str([one["metadata"]["name"] for one in rendered]))

    def test_no_replicas_where_something_else_counts_them(self):
        for name in ("keda", "hpa"):
            self.assertNotIn("replicas", pick(render_file(name), "Deployment", "-worker-cpu")["spec"])
        self.assertIn("replicas", pick(render_file("external"), "Deployment", "-worker-cpu")["spec"])


class ServerTest(unittest.TestCase):
    def server(self, rendered):
        return pick(rendered, "Deployment", "-server")

    def test_defaults(self):
        rendered = render_file("defaults")
        server = self.server(rendered)
        self.assertEqual(server["spec"]["replicas"], 1)
        self.assertEqual(server["spec"]["strategy"], {"type": "Recreate"})
        container = server["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["args"][0], "serve")
        self.assertNotIn("command", container)
        self.assertEqual(arguments(container), {
            "listen": "0.0.0.0:8080", "worker-listen": "tcp://0.0.0.0:7601",
            "worker-advertise": "tcp://$(POD_IP):7601", "data": "/data", "objects": "file:///data/objects",
            "models": "/models", "workers": "0", "threads": "$(CPUS)", "auth": "tokens",
            "admin-token-file": "/secrets/auth/admin-token", "curve-key": "/secrets/curve/curve.key",
            "drain": "30", "log-format": "json"})
        self.assertGreater(server["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30)
        claim = pick(rendered, "PersistentVolumeClaim")
        self.assertNotIn("storageClassName", claim["spec"])
        self.assertEqual(claim["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")

    def test_external(self):
        rendered = render_file("external")
        self.assertNotIn("PersistentVolumeClaim", tools.kinds(rendered))
        server = self.server(rendered)
        self.assertEqual(server["spec"]["replicas"], 3)
        self.assertEqual(server["spec"]["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        container = server["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(arguments(container)["store"], "postgresql://pg-rw.db:5432/longwave?sslmode=require")
        self.assertEqual(arguments(container)["objects"], "s3://longwave/prod/a")
        self.assertNotIn("data", arguments(container))
        found = environment(container)
        self.assertEqual(found["PGUSER"]["secretKeyRef"], {"name": "pg", "key": "username"})
        self.assertEqual(found["AWS_ENDPOINT_URL_S3"], "http://minio.storage:9000")
        self.assertEqual(found["AWS_REGION"], "eu-central-1")

    def test_probes_tell_the_truth(self):
        for name, scheme in (("defaults", "HTTP"), ("tls", "HTTPS")):
            rendered = render_file(name)
            container = self.server(rendered)["spec"]["template"]["spec"]["containers"][0]
            for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                self.assertEqual(container[probe]["httpGet"], {"path": path, "port": "http", "scheme": scheme})
            worker = pick(rendered, "Deployment", "-worker-cpu")["spec"]["template"]["spec"]["containers"][0]
            for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                self.assertEqual(worker[probe]["httpGet"], {"path": path, "port": "metrics", "scheme": "HTTP"})

    def test_selectors_find_the_pods_and_ports_have_their_names(self):
        for name in tools.value_sets():
            rendered = render_file(name)
            templates = [one["spec"]["template"] for one in rendered if one["kind"] == "Deployment"]
            for service in (one for one in rendered if one["kind"] == "Service"):
                found = [one for one in templates
                         if service["spec"]["selector"].items() <= one["metadata"]["labels"].items()]
                self.assertEqual(len(found), 1, (name, service["metadata"]["name"]))
                ports = {port["name"] for port in found[0]["spec"]["containers"][0]["ports"]}
                self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, ports)
            for budget in (one for one in rendered if one["kind"] == "PodDisruptionBudget"):
                found = [one for one in templates if budget["spec"]["selector"]["matchLabels"].items()
                         <= one["metadata"]["labels"].items()]
                self.assertEqual(len(found), 1, (name, budget["metadata"]["name"]))
            for one in rendered:
                if one["kind"] == "Deployment":
                    self.assertLessEqual(one["spec"]["selector"]["matchLabels"].items(),
                                         one["spec"]["template"]["metadata"]["labels"].items())

    def test_checksums_follow_what_is_configured(self):
        annotations = lambda values: self.server(render(values))["spec"]["template"]["metadata"]["annotations"]
        base = {"auth": {"existingSecret": "a"}, **CURVE}
        self.assertEqual(annotations(base), annotations(base))
        first, second = (annotations({**base, "server": {"config": text}}) for text in ("lease = 6\n", "lease = 7\n"))
        self.assertNotEqual(first["checksum/config"], second["checksum/config"])
        # A secret that the chart makes is new in each rendering without a cluster.
        self.assertNotEqual(annotations(CURVE)["checksum/auth"], annotations(CURVE)["checksum/auth"])

    def test_configuration_file(self):
        rendered = render_file("everything")
        self.assertEqual(pick(rendered, "ConfigMap", "-server")["data"]["serve.conf"].strip(), "lease = 6")
        container = self.server(rendered)["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(arguments(container)["config"], "/config/serve.conf")

    def test_ipv6(self):
        container = self.server(render_file("everything"))["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(arguments(container)["worker-advertise"], "tcp://[$(POD_IP)]:7601")
        self.assertEqual(arguments(container)["listen"], "[::]:8080")

    def test_images(self):
        image = lambda rendered, name: pick(rendered, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"]
        rendered = render_file("gpu")
        self.assertEqual(image(rendered, "-server"), "longwave:0.1.0")
        self.assertEqual(image(rendered, "-worker-h100"), "longwave:0.1.0-cuda")
        rendered = render_file("everything")
        self.assertRegex(image(rendered, "-server"), "^registry.example.org/longwave@sha256:0123")
        self.assertEqual(image(rendered, "-worker-gpu"), "registry.example.org/longwave:0.1.0-cuda")
        self.assertEqual(image(rendered, "-worker-cpu"), "other:1")
        self.assertEqual(image(render({"image": {"tag": "7"}, **CURVE}), "-server"), "longwave:7")
        rendered = render({"server": {"image": {"repository": "ours", "tag": "8"}},
                           "pools": {"cpu": {}, "gpu": {"device": "auto", "gpus": 1}}, **CURVE})
        self.assertEqual([image(rendered, name) for name in ("-server", "-cpu", "-gpu")],
                         ["ours:8", "longwave:0.1.0", "longwave:0.1.0-cuda"])

    def test_how_servers_are_replaced(self):
        """One by one where the volume allows it; then each goes on for a while, where Kubernetes can wait."""
        def server(name, kube="1.32"):
            spec = self.server(render_file(name, kube=kube))["spec"]
            return spec["strategy"]["type"], spec["template"]["spec"]["containers"][0].get("lifecycle")
        pause = {"preStop": {"sleep": {"seconds": 5}}}
        self.assertEqual(server("defaults"), ("Recreate", None))
        for name in ("external", "shared"):
            self.assertEqual(server(name), ("RollingUpdate", pause))
            self.assertEqual(server(name, kube="1.29"), ("RollingUpdate", None))

    def test_annotations_for_scraping_only_without_monitors(self):
        for name, wanted in (("defaults", True), ("bare", False), ("tls", False)):
            annotations = self.server(render_file(name))["spec"]["template"]["metadata"].get("annotations") or {}
            self.assertEqual("prometheus.io/scrape" in annotations, wanted, name)


class WorkersTest(unittest.TestCase):
    def worker(self, rendered, pool="cpu"):
        return pick(rendered, "Deployment", f"-worker-{pool}")["spec"]["template"]["spec"]

    def test_defaults(self):
        container = self.worker(render_file("defaults"))["containers"][0]
        self.assertEqual(container["args"][0], "worker")
        self.assertEqual(arguments(container), {
            "connect": "tcp://lw-longwave-workers:7601", "device": "cpu", "uid": "$(POD_UID)", "threads": "$(CPUS)",
            "link-listen": "tcp://0.0.0.0:7602", "link-advertise": "tcp://$(POD_IP):7602",
            "metrics-listen": "0.0.0.0:9464", "curve-key": "/secrets/curve/curve.key", "log-format": "json"})
        self.assertIn("resourceFieldRef", environment(container)["CPUS"])

    def test_gpu_beside_cpu(self):
        rendered = render_file("gpu")
        pod = self.worker(rendered, "h100")
        container = pod["containers"][0]
        self.assertEqual(container["resources"]["limits"], {"nvidia.com/gpu": 1, "cpu": "8", "memory": "32Gi"})
        self.assertEqual(pod["runtimeClassName"], "nvidia")
        self.assertEqual(environment(container)["NCCL_SOCKET_IFNAME"], "eth0")
        self.assertIn({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}, pod["volumes"])
        self.assertEqual(arguments(container)["collective"], "nccl")
        self.assertEqual(pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]["longwave.io/pool"], "h100")
        other = self.worker(rendered)
        self.assertNotIn("nvidia.com/gpu", str(other))
        self.assertNotIn("runtimeClassName", other)

    def test_one_nodes_volume_keeps_its_pods_together(self):
        """Workers must be beside the server. It must not be bound to anybody, least of all to what a drain removes."""
        rendered = render_file("defaults")
        server, worker = (pick(rendered, "Deployment", end)["spec"]["template"] for end in ("-server", "-worker-cpu"))
        rules = worker["spec"]["affinity"]["podAffinity"]
        self.assertEqual(list(rules), ["requiredDuringSchedulingIgnoredDuringExecution"])
        required, = rules["requiredDuringSchedulingIgnoredDuringExecution"]
        rules = server["spec"]["affinity"]["podAffinity"]
        self.assertEqual(list(rules), ["preferredDuringSchedulingIgnoredDuringExecution"])
        preferred, = rules["preferredDuringSchedulingIgnoredDuringExecution"]
        self.assertEqual(preferred["weight"], 100)
        for term, wanted, other in ((required, server, worker), (preferred["podAffinityTerm"], worker, server)):
            self.assertEqual(term["topologyKey"], "kubernetes.io/hostname")
            labels = term["labelSelector"]["matchLabels"].items()
            self.assertLessEqual(labels, wanted["metadata"]["labels"].items())
            self.assertFalse(labels <= other["metadata"]["labels"].items())
        # A drain must be able to move all of them.
        self.assertEqual(pick(rendered, "PodDisruptionBudget", "-worker-cpu")["spec"]["maxUnavailable"], "100%")
        for name in ("shared", "external"):
            rendered = render_file(name)
            self.assertNotIn("affinity", self.worker(rendered))
            self.assertEqual(pick(rendered, "PodDisruptionBudget", "-worker-cpu")["spec"]["maxUnavailable"], "25%")
        kept = self.worker(render({"pools": {"cpu": {"affinity": {"nodeAffinity": {}, "podAntiAffinity": {}}}}, **CURVE}))
        self.assertEqual(set(kept["affinity"]), {"podAffinity", "nodeAffinity", "podAntiAffinity"})

    def test_workers_are_spread_over_nodes(self):
        """A ReplicaSet removes pods of the node that has most of them first, busy or not. Each pool counts its own."""
        rendered = render({"pools": {"cpu": {}, "off": {"topologySpreadConstraints": []}}, **CURVE})
        self.assertEqual(self.worker(rendered)["topologySpreadConstraints"], [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
             "matchLabelKeys": ["pod-template-hash"],
             "labelSelector": {"matchLabels": pick(rendered, "Deployment", "-cpu")["spec"]["selector"]["matchLabels"]}}])
        self.assertNotIn("topologySpreadConstraints", self.worker(rendered, "off"))

    def test_recreate_has_no_rolling_update(self):
        """The default's rollingUpdate is not merged into it: Kubernetes refuses the two together."""
        for strategy in ({"type": "Recreate"}, {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}):
            rendered = render({"pools": {"cpu": {"strategy": strategy}}, **CURVE})
            self.assertEqual(pick(rendered, "Deployment", "-worker-cpu")["spec"]["strategy"], {"type": "Recreate"})

    def test_zero_and_false_count_as_values(self):
        """Template functions that merge maps take 0 and false for absent."""
        rendered = render({"poolDefaults": {"replicas": 3}, "pools": {"cpu": {"replicas": 0, "budget": {"enabled": False}}},
                           **CURVE})
        self.assertEqual(pick(rendered, "Deployment", "-worker-cpu")["spec"]["replicas"], 0)
        self.assertEqual([one["metadata"]["name"] for one in rendered if one["kind"] == "PodDisruptionBudget"],
                         ["lw-longwave-server"])
        self.assertEqual(pick(render_file("keda"), "ScaledObject", "-cpu")["spec"]["minReplicaCount"], 0)

    def test_models(self):
        mount = {"name": "models", "mountPath": "/models", "readOnly": True}
        for name, source in (("gpu", "persistentVolumeClaim"), ("shared", "emptyDir")):
            for owner, pod in pod_specs(render_file(name)):
                self.assertIn(mount, pod["containers"][0]["volumeMounts"], owner)
                self.assertIn(source, next(volume for volume in pod["volumes"] if volume["name"] == "models"))
                self.assertEqual(len(pod.get("initContainers", [])), source == "emptyDir")
        for owner, pod in pod_specs(render_file("defaults")):
            self.assertNotIn("models", [volume["name"] for volume in pod["volumes"]])


class ScalingTest(unittest.TestCase):
    def test_keda(self):
        scaled = pick(render_file("keda"), "ScaledObject", "-worker-cpu")["spec"]
        self.assertEqual(scaled["scaleTargetRef"]["name"],
                         pick(render_file("keda"), "Deployment", "-worker-cpu")["metadata"]["name"])
        trigger = scaled["triggers"][0]
        # "Value": replicas x drain / target. The default, AverageValue, would be drain / target replicas.
        self.assertEqual(trigger["metricType"], "Value")
        self.assertEqual(trigger["metadata"]["threshold"], "120")
        self.assertEqual(trigger["metadata"]["ignoreNullValues"], "false")
        self.assertIn('{namespace="team"}', trigger["metadata"]["query"])
        self.assertEqual(trigger["authenticationRef"], {"name": "prometheus"})
        self.assertEqual(pick(render_file("keda"), "ScaledObject", "-big")["spec"]["triggers"][0]["metadata"]["threshold"], "900")

    def test_hpa(self):
        spec = pick(render_file("hpa"), "HorizontalPodAutoscaler")["spec"]
        metric = spec["metrics"][0]["external"]
        self.assertEqual(metric["target"], {"type": "Value", "value": "120"})
        self.assertEqual(metric["metric"], {"name": "longwave_drain_seconds", "selector": {"matchLabels": {"release": "lw"}}})
        down, up = spec["behavior"]["scaleDown"], spec["behavior"]["scaleUp"]
        self.assertLess(up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"])

    def test_the_alert_of_an_absent_metric_only_where_it_matters(self):
        names = lambda values: [group["name"] for group in pick(render({"metrics": {"rules": {"enabled": True}}, **values, **CURVE}),
                                                                 "PrometheusRule")["spec"]["groups"]]
        self.assertNotIn("longwave-autoscaling", names({}))
        self.assertIn("longwave-autoscaling", names({"pools": {"cpu": {"autoscaling": {"type": "hpa"}}}}))


class PoliciesTest(unittest.TestCase):
    """Exactly the lines of docs/kubernetes.md."""

    def lines(self, rendered):
        """{(direction, component, peer, port)}; a peer is a component or a kind."""
        found = set()
        def name(peer):
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            if "app.kubernetes.io/component" in labels:
                return labels["app.kubernetes.io/component"]
            if "namespaceSelector" in peer:
                return peer["namespaceSelector"].get("matchLabels", {}).get("kubernetes.io/metadata.name", "pods")
            return peer["ipBlock"]["cidr"] if "ipBlock" in peer else "namespace"
        for policy in (one for one in rendered if one["kind"] == "NetworkPolicy"):
            self.assertEqual(policy["spec"]["policyTypes"], ["Ingress", "Egress"])
            mine = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for direction, peers in (("ingress", "from"), ("egress", "to")):
                for rule in policy["spec"].get(direction, []):
                    self.assertTrue(rule[peers] and rule["ports"])  # empty would be everybody
                    for peer in rule[peers]:
                        for port in rule["ports"]:
                            found.add((direction, mine, name(peer), port["port"]))
        return found

    def test_defaults(self):
        self.assertEqual(self.lines(render_file("defaults")), {
            ("ingress", "server", "test", 8080), ("ingress", "server", "namespace", 8080),
            ("ingress", "server", "monitoring", 8080), ("ingress", "server", "worker", 7601),
            ("egress", "server", "kube-system", 53),
            ("ingress", "worker", "worker", 7602), ("ingress", "worker", "monitoring", 9464),
            ("egress", "worker", "server", 7601), ("egress", "worker", "worker", 7602),
            ("egress", "worker", "kube-system", 53),
            ("egress", "test", "server", 8080), ("egress", "test", "kube-system", 53)})

    def test_ports_are_those_of_the_containers(self):
        for owner, pod in pod_specs(render_file("defaults")):
            ports = {port["containerPort"] for port in pod["containers"][0].get("ports", [])}
            mine = "server" if owner.endswith("-server") else "worker" if "-worker-" in owner else "test"
            self.assertEqual(ports, {line[3] for line in self.lines(render_file("defaults")) if line[:2] == ("ingress", mine)})

    def test_external(self):
        extra = self.lines(render_file("external")) - self.lines(render_file("defaults"))
        self.assertEqual(extra, {("egress", "server", "db", 5432), ("egress", "server", "storage", 9000),
                                 ("egress", "worker", "storage", 9000)})

    def test_objects_on_the_port_of_their_endpoint(self):
        for endpoint, port in (("", 443), ("https://s3.example.org", 443), ("http://minio", 80), ("http://minio:9000", 9000),
                               ("https://[fd00::1]", 443), ("https://[fd00::1]:9443", 9443)):
            for ports, wanted in (([], {port}), ([9001, 9002], {9001, 9002})):
                with self.subTest(endpoint=endpoint, ports=ports):
                    lines = self.lines(render({
                        "objects": {"type": "s3", "s3": {"bucket": "b", "existingSecret": "s3", "endpoint": endpoint}},
                        "networkPolicy": {"objects": {"ports": ports}}, **CURVE}))
                    self.assertEqual(lines - self.lines(render_file("defaults")), {
                        ("egress", part, peer, one) for part in ("server", "worker")
                        for peer in ("0.0.0.0/0", "::/0", "pods") for one in wanted})

    def test_what_copies_models_may_fetch_them(self):
        """The test's init container goes where the workers' does."""
        copy = {"source": "copy", "copy": {"image": "x", "command": ["fetch"]}}
        more = {"networkPolicy": {"extraWorkerEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443}]}]}}
        line = ("egress", "test", "10.0.0.0/8", 443)
        self.assertIn(line, self.lines(render({"models": copy, **more, **CURVE})))
        self.assertNotIn(line, self.lines(render({**more, **CURVE})))

    def test_nccl_only_between_workers(self):
        extra = self.lines(render_file("gpu")) - self.lines(render_file("defaults"))
        self.assertEqual({line for line in extra if line[3] == 1024},
                         {("ingress", "worker", "worker", 1024), ("egress", "worker", "worker", 1024)})

    def test_every_pod_has_a_policy(self):
        rendered = render_file("everything")
        policies = [one["spec"]["podSelector"]["matchLabels"] for one in rendered if one["kind"] == "NetworkPolicy"]
        labels = [one["spec"]["template"]["metadata"]["labels"] for one in rendered if one["kind"] == "Deployment"]
        labels += [one["metadata"]["labels"] for one in rendered if one["kind"] == "Pod"]
        for one in labels:
            self.assertTrue(any(policy.items() <= one.items() for policy in policies), one)


class MadeTest(unittest.TestCase):
    """Secrets that the chart makes."""

    def secret(self, rendered, name):
        return {key: base64.b64decode(value) for key, value in pick(rendered, "Secret", name)["data"].items()}

    def test_curve_key(self):
        """What ReadCurveKey() takes: 64 hexadecimal digits."""
        first, second = (self.secret(render(version=version), "-curve")["curve.key"] for version in tools.HELMS)
        self.assertRegex(first.decode(), "^[0-9a-f]{64}$")
        self.assertNotEqual(first, second)

    def test_certificate(self):
        made = self.secret(render_file("tls"), "-tls")
        with tempfile.TemporaryDirectory() as folder:
            for name, content in made.items():
                with open(f"{folder}/{name}", "wb") as out:
                    out.write(content)
            for host in ("lw-longwave", "lw-longwave.team.svc", "lw-longwave.team.svc.cluster.local", "longwave.example.org"):
                subprocess.run(["openssl", "verify", "-CAfile", f"{folder}/ca.crt", "-verify_hostname", host,
                                f"{folder}/tls.crt"], check=True, capture_output=True)
            wrong = subprocess.run(["openssl", "verify", "-CAfile", f"{folder}/ca.crt", "-verify_hostname", "other",
                                    f"{folder}/tls.crt"], check=False, capture_output=True)
            self.assertNotEqual(wrong.returncode, 0)

    def test_token(self):
        first, second = (self.secret(render(CURVE), "-auth")["admin-token"] for _ in range(2))
        self.assertRegex(first.decode(), "^[A-Za-z0-9]{48}$")
        self.assertNotEqual(first, second)


class LintTest(unittest.TestCase):
    def test_lint(self):
        for version in tools.HELMS:
            for name, path in tools.value_sets().items():
                with self.subTest(helm=version, values=name):
                    result = tools.helm("lint", "--strict", tools.CHART, "--values", path, version=version, check=False)
                    self.assertEqual(result.returncode, 0, result.stdout)

    def test_readme_and_schema_are_made_of_the_values(self):
        result = subprocess.run(["python3", tools.SOURCE / "helm" / "generate.py", "--check"], check=False,
                                capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_every_value_is_used(self):
        """Each value of values.yaml is named in a template or the notes."""
        texts = "".join(path.read_text() for path in (tools.CHART / "templates").iterdir())
        for key in re.findall(r"^ *([A-Za-z]\w+):", (tools.CHART / "values.yaml").read_text(), re.M):
            if key not in ("global", "cpu", "requests", "limits", "policies", "scaleUp", "scaleDown", "rollingUpdate",
                           "stabilizationWindowSeconds", "selectPolicy", "runAsNonRoot", "runAsUser", "runAsGroup",
                           "fsGroup", "fsGroupChangePolicy", "seccompProfile", "allowPrivilegeEscalation",
                           "readOnlyRootFilesystem", "capabilities", "poolDefaults", "copy"):
                self.assertRegex(texts, rf"\b{key}\b", key)


if __name__ == "__main__":
    unittest.main()
