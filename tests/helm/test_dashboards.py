"""Grafana's dashboards: made of their table, every panel with title and unit, every query one that Prometheus takes."""

import json
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

import test_rules
import tools

FILES = sorted((tools.CHART / "files" / "dashboards").glob("*.json"))


def panels():
    for path in FILES:
        for panel in json.loads(path.read_text())["panels"]:
            yield path.stem, panel


class DashboardsTest(unittest.TestCase):
    def test_made_of_the_table(self):
        result = subprocess.run([sys.executable, tools.SOURCE / "helm" / "dashboards.py", "--check"], check=False,
                                capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_four(self):
        self.assertEqual([path.stem for path in FILES], ["job", "links", "overview", "stores"])
        uids = [json.loads(path.read_text())["uid"] for path in FILES]
        self.assertEqual(len(set(uids)), 4)

    def test_every_panel_has_its_unit_in_its_title(self):
        words = {"s": "(seconds)", "Bps": "(bytes per second)", "reqps": "(requests per second)"}
        for name, panel in panels():
            with self.subTest(dashboard=name, panel=panel["title"]):
                self.assertRegex(panel["title"], r" \([a-z ]+\)$")
                unit = panel["fieldConfig"]["defaults"]["unit"]
                if unit in words:
                    self.assertTrue(panel["title"].endswith(words[unit]))
                self.assertTrue(panel["targets"])
                for target in panel["targets"]:
                    self.assertTrue(target["legendFormat"])

    def test_queries_parse(self):
        """As the expressions of rules, by promtool."""
        rules = [{"record": f"x:{i}:{n}", "expr": target["expr"].replace("$__rate_interval", "1m")}
                 for i, (_, panel) in enumerate(panels()) for n, target in enumerate(panel["targets"])]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as out:
            yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}, out)
            out.flush()
            result = subprocess.run(["promtool", "check", "rules", out.name], check=False, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertGreater(len(rules), 40)

    def test_every_metric_exists(self):
        known = test_rules.documented()
        for name, panel in panels():
            for target in panel["targets"]:
                for metric in test_rules.metrics_of(target["expr"]):
                    self.assertIn(metric, known, (name, panel["title"]))

    def test_every_metric_of_the_program_is_shown(self):
        """What is documented but on no dashboard and in no rule is a metric that nobody looks at."""
        text = "".join(path.read_text() for path in FILES) + "".join(
            path.read_text() for path in test_rules.RULES.glob("*.yaml"))
        for metric in test_rules.documented() - {"longwave_build_info", "longwave_chunks_dispatched_total",
                                                 "longwave_chunks_committed_total", "longwave_tokens_per_second"}:
            self.assertTrue(re.search(rf"\b{metric}(_bucket|_count|_sum)?\b", text), metric)


if __name__ == "__main__":
    unittest.main()
