"""Prometheus' rules by promtool: each alert fires and does not fire; and every metric that they name exists."""

import re
import shutil
import subprocess
import tempfile
import unittest
import pathlib

import yaml

import tools

RULES = tools.CHART / "files" / "rules"
TESTS = tools.HERE / "rules"

def all_rules():
    return [rule for path in sorted(RULES.glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"]]


def metrics_of(expression):
    """The names of Longwave's metrics and recorded series in a query."""
    text = re.sub(r'"[^"]*"', '""', expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) if not name.startswith("longwave:") else name
            for name in re.findall(r"\blongwave[_:][a-zA-Z0-9_:]+", text)}


def documented():
    page = (tools.SOURCE / "docs" / "metrics.md").read_text()
    return set(re.findall(r"^\| `(longwave_\w+)`", page, re.M))


class RulesTest(unittest.TestCase):
    def promtool(self, *arguments, **options):
        return subprocess.run(["promtool", *arguments], text=True, capture_output=True, check=False, **options)

    def test_promtool(self):
        self.assertEqual(self.promtool("check", "rules", *map(str, RULES.glob("*.yaml"))).returncode, 0)
        with tempfile.TemporaryDirectory() as folder:
            for path in RULES.glob("*.yaml"):
                shutil.copy(path, folder)
            names = []
            for path in TESTS.glob("*.yaml"):
                names.append(f"test_{path.name}")
                shutil.copy(path, pathlib.Path(folder) / names[-1])
            result = self.promtool("test", "rules", *names, cwd=folder)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_each_alert_fires_and_does_not_fire(self):
        fires, rests = set(), set()
        for test in yaml.safe_load((TESTS / "alerts.yaml").read_text())["tests"]:
            for one in test["alert_rule_test"]:
                (fires if one["exp_alerts"] else rests).add(one["alertname"])
        alerts = {rule["alert"] for rule in all_rules() if "alert" in rule}
        self.assertEqual(fires, alerts)
        self.assertEqual(rests, alerts)
        recorded = {rule["record"] for rule in all_rules() if "record" in rule}
        tested = set()
        for test in yaml.safe_load((TESTS / "recording.yaml").read_text())["tests"]:
            for one in test["promql_expr_test"]:
                tested |= metrics_of(one["expr"])
        self.assertEqual(tested, recorded)

    def test_each_alert_has_its_section(self):
        page = (tools.SOURCE / "docs" / "operations.md").read_text()
        anchors = {heading.strip().lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", page, re.M)}
        for rule in all_rules():
            if "alert" in rule:
                self.assertEqual(rule["annotations"]["runbook"], f"docs/operations.md#{rule['alert'].lower()}")
                self.assertIn(rule["alert"].lower(), anchors)
                self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
                self.assertLessEqual({"summary", "description", "runbook"}, set(rule["annotations"]))

    def test_every_metric_exists(self):
        known = documented()
        recorded = {rule["record"] for rule in all_rules() if "record" in rule}
        for rule in all_rules():
            for name in metrics_of(rule["expr"]):
                self.assertIn(name, known | recorded, rule.get("alert") or rule["record"])

    def test_the_chart_has_them_all(self):
        rendered = tools.pick(tools.render_file("everything"), "PrometheusRule")
        self.assertEqual([rule for group in rendered["spec"]["groups"] for rule in group["rules"]],
                         [rule for path in sorted(RULES.glob("*.yaml"))
                          for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]])


if __name__ == "__main__":
    unittest.main()
