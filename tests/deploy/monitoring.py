"""Debian's Prometheus with the chart's rules and scrape configuration, for tests.

Both are taken from the rendered chart, and time in them may be divided by a factor: `for: 10m` becomes 20 s at a factor
of 30, `[5m]` 10 s, a scrape every 15 s one every half second. Only the targets are substituted.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest
import urllib.error
import urllib.parse
import urllib.request

import yaml

SOURCE = pathlib.Path(os.environ.get("LONGWAVE_SOURCE", pathlib.Path(__file__).parents[2]))
for folder in ("cli", "cluster", "helm"):
    sys.path.insert(0, str(SOURCE / "tests" / folder))
import tools  # noqa: E402
from cluster import PATIENCE, wait_for  # noqa: E402

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
NAMESPACE, RELEASE = "team", "lw"


def seconds(duration):
    number, unit = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", duration).groups()
    return int(number) * UNITS[unit]


def faster(duration, factor):
    return f"{max(1, round(1000 * seconds(duration) / factor))}ms"


def faster_query(query, factor):
    return re.sub(r"\[([0-9]+(?:ms|s|m|h|d))\]", lambda found: f"[{faster(found[1], factor)}]", query)


def faster_rules(groups, factor):
    """The groups of rules with all of their durations divided by the factor."""
    groups = json.loads(json.dumps(groups))
    for group in groups:
        group["interval"] = faster(group.get("interval", "15s"), factor)
        for rule in group["rules"]:
            rule["expr"] = faster_query(rule["expr"], factor)
            if "for" in rule:
                rule["for"] = faster(rule["for"], factor)
    return groups


def scrape_configs(rendered, folder, factor):
    """What the Prometheus operator makes of the chart's monitors, with targets out of files in `folder`."""
    configs = []
    for monitor in rendered:
        if monitor["kind"] not in ("ServiceMonitor", "PodMonitor"):
            continue
        spec = monitor["spec"]
        endpoint, = spec.get("endpoints", []) + spec.get("podMetricsEndpoints", [])
        interval = faster(endpoint["interval"], factor)
        relabelings = [{"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                       {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"}]
        for relabeling in endpoint["relabelings"]:
            assert set(relabeling) <= {"targetLabel", "replacement", "sourceLabels"}, relabeling
            relabelings.append({"target_label": relabeling["targetLabel"], **(
                {"replacement": relabeling["replacement"]} if "replacement" in relabeling else
                {"source_labels": relabeling["sourceLabels"]})})
        name = monitor["metadata"]["name"]
        configs.append({
            "job_name": name, "scheme": endpoint.get("scheme", "http"), "metrics_path": endpoint["path"],
            "scrape_interval": interval, "scrape_timeout": interval, "relabel_configs": relabelings,
            "file_sd_configs": [{"files": [str(folder / f"{name}.json")]}]})
    return configs


class Prometheus:
    """`component`: what the monitors look for, "server" or "worker"; targets are pods of it."""

    def __init__(self, folder, rendered, factor):
        self.program = shutil.which("prometheus")
        if not self.program:
            raise unittest.SkipTest("NOT TESTED: there is no prometheus")
        self.folder = folder
        folder.mkdir()
        self.factor = factor
        self.pods = {"server": {}, "worker": {}}
        self.scraped = scrape_configs(rendered, folder, factor)
        self.groups = faster_rules(tools.pick(rendered, "PrometheusRule")["spec"]["groups"], factor)
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": self.groups}))
        (folder / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"evaluation_interval": faster("15s", factor)},
            "rule_files": [str(folder / "rules.yaml")], "scrape_configs": self.scraped}))
        self.write()
        with open(folder / "log", "w") as log:
            self.process = subprocess.Popen(
                [self.program, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
                 "--web.listen-address=127.0.0.1:0", "--query.lookback-delta=30s"], stdout=log, stderr=log)
        found = wait_for("Prometheus", lambda: self.process.poll() is not None or re.search(
            r'msg="Listening on" address=(\S+)', (folder / "log").read_text()))
        assert self.process.poll() is None, (folder / "log").read_text()
        self.address = found[1]
        self.url = f"http://{self.address}"
        wait_for("Prometheus", self.ready)

    def ready(self):
        try:
            return urllib.request.urlopen(f"{self.url}/-/ready", timeout=PATIENCE).status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def write(self):
        for component, pods in self.pods.items():
            for config in self.scraped:
                if not config["job_name"].endswith(component):
                    continue
                path = self.folder / f"{config['job_name']}.json"
                path.with_suffix(".new").write_text(json.dumps([
                    {"targets": [address],
                     "labels": {"__meta_kubernetes_namespace": NAMESPACE, "__meta_kubernetes_pod_name": pod,
                                "__meta_kubernetes_pod_label_longwave_io_pool": "cpu"}}
                    for pod, address in pods.items()]))
                path.with_suffix(".new").rename(path)

    def add(self, component, pod, address):
        self.pods[component][pod] = address
        self.write()

    def remove(self, component, pod):
        self.pods[component].pop(pod)
        self.write()

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """[(labels, value)]"""
        return [(one["metric"], float(one["value"][1])) for one in self.ask("query", query=expression)["result"]]

    def value(self, expression):
        """Of the one series there is; None where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, (expression, found)
        return found[0][1] if found else None

    def firing(self):
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)
