#!/usr/bin/env python3
"""The chart's scaling policy in closed loop: a burst of jobs on a pool that grows and shrinks by it.

    ./dev bench autoscale [--out docs/benchmarks/autoscale] [--factor 10]

What is real: the scheduler (`longwave serve`), the workers' processes (`longwave worker`, of a simulated device that
sleeps where a model would compute), SIGTERM to them, Prometheus, and query, target, limits and behaviour as the
chart's manifests have them. What is modelled: the horizontal pod autoscaler's algorithm (autoscaling/v2), KEDA's step
from and to zero, and the order in which a ReplicaSet removes pods. Time runs `factor` times faster than it would: every
interval is divided by it, the workers' speed and the drain seconds are multiplied; all figures are in the time that it
stands for.
"""

import argparse
import json
import math
import os
import pathlib
import re
import signal
import sys
import time
import unittest
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "deploy"))
from monitoring import NAMESPACE, Prometheus, tools, wait_for  # noqa: E402
from cluster import ClusterTest, check_simulated  # noqa: E402
import autoscale_plot  # noqa: E402

SYNC = 15  # seconds between two looks of an HPA
TOLERANCE = 0.1
TRICKLE = 25, 1400  # seconds between two jobs, and how long: the work of eight workers
START = 30  # seconds from a pod's creation to its process
JOBS, TOKENS, CHUNK = 50, 1 << 20, 1 << 15
SPEED = 5000  # tokens per second of a worker
LAYERS = 4


class Hpa:
    """The horizontal pod autoscaler's decisions: one external metric of type Value, behaviour with policies.

    Of kubernetes/pkg/controller/podautoscaler: getUsageRatioReplicaCount, stabilizeRecommendationWithBehaviors and
    convertDesiredReplicasWithBehaviorRate.
    """

    def __init__(self, least, most, target, behavior):
        self.least, self.most, self.target, self.behavior = least, most, target, behavior
        self.recommendations = []  # (time, replicas)
        self.events = {"scaleUp": [], "scaleDown": []}  # (time, change)

    def changed(self, kind, seconds, now):
        return sum(change for at, change in self.events[kind] if at > now - seconds)

    def limit(self, kind, current, now):
        """How far the policies let it go."""
        rules, up = self.behavior[kind], kind == "scaleUp"
        if rules["selectPolicy"] == "Disabled":
            return current
        proposals = []
        for policy in rules["policies"]:
            period = policy["periodSeconds"]
            start = current - self.changed("scaleUp", period, now) + self.changed("scaleDown", period, now)
            change = policy["value"] if policy["type"] == "Pods" else start * policy["value"] / 100
            proposals.append(math.ceil(start + change) if up else int(start - change))
        furthest = rules["selectPolicy"] == "Max"
        return (max if up == furthest else min)(proposals)

    def decide(self, current, ready, metric, now):
        """The number of replicas that there should be; `metric` None: it could not be had, nothing changes."""
        if metric is None:
            return current
        ratio = metric / self.target
        desired = current if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * ready)
        self.recommendations.append((now, desired))
        window = {kind: self.behavior[kind]["stabilizationWindowSeconds"] for kind in self.events}
        least = min(n for at, n in self.recommendations if at > now - window["scaleUp"] or at == now)
        most = max(n for at, n in self.recommendations if at > now - window["scaleDown"] or at == now)
        desired = max(least, min(current, most))
        if desired > current:
            limit = max(current, self.limit("scaleUp", current, now))
            desired = min(desired, limit, self.most)
        elif desired < current:
            limit = min(current, self.limit("scaleDown", current, now))
            desired = max(desired, limit)
        desired = max(self.least, min(self.most, desired))
        if desired != current:
            self.events["scaleUp" if desired > current else "scaleDown"].append((now, abs(desired - current)))
        return desired


class Policy:
    """What the chart says about a pool: an HPA, and where it is KEDA's, the step from and to zero."""

    def __init__(self, kind):
        values = {"metrics": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}},
                  "autoscaling": {"prometheusUrl": "http://prometheus:9090"},
                  "pools": {"cpu": {"autoscaling": {"type": kind, "minReplicas": int(kind == "hpa"), "maxReplicas": 32}}}}
        self.rendered = tools.render(values)
        if kind == "hpa":
            spec = tools.pick(self.rendered, "HorizontalPodAutoscaler")["spec"]
            metric, = spec["metrics"]
            labels = metric["external"]["metric"]["selector"]["matchLabels"]
            assert metric["external"]["target"]["type"] == "Value" and labels == {"namespace": NAMESPACE}
            # What docs/kubernetes.md has prometheus-adapter ask.
            self.query = f'max by (namespace) (longwave_drain_seconds{{namespace="{NAMESPACE}"}})'
            self.least, self.most = spec["minReplicas"], spec["maxReplicas"]
            target, behavior, self.cooldown = metric["external"]["target"]["value"], spec["behavior"], None
        else:
            spec = tools.pick(self.rendered, "ScaledObject")["spec"]
            trigger, = spec["triggers"]
            assert trigger["metricType"] == "Value", trigger
            self.query = trigger["metadata"]["query"]
            self.activation = float(trigger["metadata"]["activationThreshold"])
            self.least, self.most = spec["minReplicaCount"], spec["maxReplicaCount"]
            target, self.cooldown = trigger["metadata"]["threshold"], spec["cooldownPeriod"]
            behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self.hpa = Hpa(max(1, self.least), self.most, float(target), behavior)
        self.active_at = 0

    def decide(self, current, ready, metric, now):
        if self.cooldown is None or self.least > 0 or metric is None:
            return self.hpa.decide(current, ready, metric, now)
        if metric > self.activation:
            self.active_at = now
            if current == 0:
                return 1  # KEDA's step; the HPA, which rests at 0, goes on from there
        elif now >= self.active_at + self.cooldown:
            return 0
        return self.hpa.decide(current, ready, metric, now) if current else 0


class Pod:
    def __init__(self, created):
        self.created, self.ready_at, self.process = created, None, None
        self.uid = str(uuid.uuid4())

    def rank(self, now):
        """As a ReplicaSet sorts: what comes first is removed first."""
        if self.ready_at is None:
            return (0, 0, self.uid)
        age = (now - self.ready_at) * 1e9
        return (1, int(math.log2(age)) if age > 1 else -1, self.uid)


class Loop(ClusterTest):
    def runTest(self):
        pass

    def start(self, factor):
        self.factor = factor
        self.api = self.server("--workers", 0, "--lease", "6")
        self.began = time.monotonic()
        self.pods, self.leaving, self.samples, self.removed = [], [], [], []

    def now(self):
        return (time.monotonic() - self.began) * self.factor

    def device(self):
        layer_ms = 1000 * CHUNK / (SPEED * self.factor) / LAYERS
        return f"sim:layer_ms={layer_ms},layers={LAYERS},state_bytes=1024"

    def submit(self, jobs, tokens):
        file = self.api.upload(b"A" * tokens, "burst.txt")
        return [self.api.json("POST", "/v1/jobs", {"model": "h3-dna", "input": file, "chunk": CHUNK}, 201)["id"]
                for _ in range(jobs)]

    def jobs_left(self):
        metrics = self.api.request("GET", "/metrics")[2].decode()
        return sum(float(found) for found in re.findall(r"^longwave_jobs\{.*\} (\S+)$", metrics, re.M))

    def steer(self, replicas):
        """Makes so many pods, and starts the processes of those whose time has come."""
        now = self.now()
        states = {worker["name"]: worker["state"] for worker in self.api.json("GET", "/v1/workers")["workers"]}
        for pod in self.pods:
            if pod.process is None and now >= pod.created + START:
                pod.process = self.worker(self.api, "--device", self.device(), "--name", pod.uid, "--uid", pod.uid)
            if pod.ready_at is None and pod.uid in states:
                pod.ready_at = now
        self.leaving = [pod for pod in self.leaving if pod.process.poll() is None]
        while len(self.pods) < replicas:
            self.pods.append(Pod(now))
        for pod in sorted(self.pods, key=lambda one: one.rank(now))[:len(self.pods) - replicas]:
            self.pods.remove(pod)
            if pod.process is None:
                continue
            idle = sum(states.get(other.uid) == "idle" for other in self.pods)
            self.removed.append({"at": now, "state": states.get(pod.uid, "unknown"), "idle_kept": idle})
            pod.process.send_signal(signal.SIGTERM)
            self.leaving.append(pod)
        return states

    def burst(self, policy, jobs=JOBS, tokens=TOKENS, trickle=0):
        """The burst, and `trickle` jobs one by one, until all are over and the pool is at its least again."""
        prometheus = Prometheus(self.folder / "prometheus", policy.rendered, self.factor)
        self.addCleanup(prometheus.close)
        prometheus.add("server", "server-0", self.api.listen)
        replicas = policy.least
        while sum(pod.ready_at is not None for pod in self.pods) < replicas:
            self.steer(replicas)
            time.sleep(0.02)
        wait_for("the figure", lambda: prometheus.value(policy.query) is not None)
        self.removed.clear()
        self.began = time.monotonic()
        for pod in self.pods:  # they have been there for an hour
            pod.created = pod.ready_at = -3600
        policy.active_at = -1e9
        ids = self.submit(jobs, tokens)
        drained, looked, next_job = None, 0, TRICKLE[0]
        while drained is None or len(self.pods) > policy.least or self.leaving:
            now = self.now()
            states = self.steer(replicas)
            if trickle > 0 and now >= next_job:
                next_job += TRICKLE[0]
                trickle -= 1
                ids += self.submit(1, tokens)
            if now >= looked + SYNC:
                looked = now
                drain = prometheus.value(policy.query)
                drain = None if drain is None else drain * self.factor
                ready = sum(pod.ready_at is not None for pod in self.pods)
                replicas = policy.decide(len(self.pods), ready, drain, now)
                queue = prometheus.value("sum(longwave_queue_tokens)")
                self.samples.append({"at": now, "queue_tokens": queue, "drain_seconds": drain, "pods": replicas,
                                     "working": sum(state == "busy" for state in states.values())})
            if drained is None and now > SYNC and trickle == 0 and self.jobs_left() == 0:
                drained = self.now()
            time.sleep(0.05)
        return self.result(ids, tokens, drained)

    def fixed(self, workers, jobs=JOBS, tokens=TOKENS):
        """Seconds that so many workers from the start need."""
        for _ in range(workers):
            self.worker(self.api, "--device", self.device())
        wait_for("the workers", lambda: len(self.api.json("GET", "/v1/workers")["workers"]) == workers)
        warm = self.submit(workers, CHUNK)
        for id in warm:
            self.assertEqual(self.api.over(id)["state"], "succeeded")
        self.began = time.monotonic()
        ids = self.submit(jobs, tokens)
        wait_for("the end", lambda: self.jobs_left() == 0 and self.now() > SYNC, seconds=600)
        return self.result(ids, tokens, self.now())

    def result(self, ids, tokens, drained):
        again = []
        for id in ids:
            job = self.api.job(id)
            self.assertEqual(job["state"], "succeeded", job)
            again.append((job["progress"]["tokens_computed"] - tokens) // CHUNK)
        for id in ids[:2] + ids[-2:]:
            check_simulated(self, self.api.output(id), tokens)
        metrics = self.api.request("GET", "/metrics")[2].decode()
        value = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if line[:1] != "#"}
        return {"drained_seconds": drained, "chunks": len(ids) * tokens // CHUNK, "chunks_computed_again": again,
                "leases_lost": value["longwave_lease_losses_total"],
                "chunks_handed_back": value["longwave_chunks_handed_back_total"],
                "most_pods": max((sample["pods"] for sample in self.samples), default=None),
                "at_least_seconds": self.now() - drained, "removed": self.removed, "samples": self.samples}


def run(method, factor, *arguments, **options):
    """In a folder and a cluster of its own."""
    rows = []
    case = Loop()

    def test():
        case.start(factor)
        rows.append(getattr(case, method)(*arguments, **options))

    case.runTest = test
    result = unittest.TestResult()
    case.run(result)
    if not result.wasSuccessful():
        sys.exit("\n".join(text for _, text in result.errors + result.failures))
    return rows[0]


def summary(kind, found, fixed):
    wanted = 1.5 * fixed + START if kind != "trickle" else None
    removed = found["removed"]
    wrong = sum(one["state"] == "busy" and one["idle_kept"] > 0 for one in removed)
    return {"policy": kind, "drained_seconds": round(found["drained_seconds"], 1), "wanted_seconds": wanted and round(wanted, 1),
            "most_pods": found["most_pods"], "at_least_seconds": round(found["at_least_seconds"], 1),
            "chunks": found["chunks"], "chunks_handed_back": found["chunks_handed_back"], "chunks_computed_again": sum(found["chunks_computed_again"]),
            "most_of_a_job": max(found["chunks_computed_again"]), "leases_lost": found["leases_lost"],
            "removed": len(removed), "removed_busy": sum(one["state"] == "busy" for one in removed),
            "removed_busy_while_another_was_idle": wrong}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="a folder for autoscale.json and its plots")
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--policies", default="hpa,keda,trickle")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    fixed = run("fixed", options.factor, 32)["drained_seconds"]
    print(f"32 workers from the start: {fixed:.0f} s", flush=True)
    report = {"kind": "autoscale", "factor": options.factor, "load_before": load, "jobs": JOBS, "tokens": TOKENS,
              "chunk": CHUNK, "tokens_per_second": SPEED, "start_seconds": START, "fixed_seconds": fixed, "runs": []}
    good = True
    for kind in options.policies.split(","):
        policy = Policy("hpa" if kind == "trickle" else kind)
        found = run("burst", options.factor, policy, trickle=TRICKLE[1] // TRICKLE[0] if kind == "trickle" else 0)
        row = summary(kind, found, fixed)
        good = good and row["at_least_seconds"] <= 600 and row["leases_lost"] == 0
        good = good and (row["wanted_seconds"] is None or row["drained_seconds"] <= row["wanted_seconds"])
        print(json.dumps(row), flush=True)
        report["runs"].append({**row, "samples": found["samples"], "removals": found["removed"]})
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "autoscale.json").write_text(json.dumps(report, indent=1) + "\n")
        for one in report["runs"]:
            (options.out / f"{one['policy']}.svg").write_text(autoscale_plot.plot(one))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
