"""A cluster of processes that stands for a release of the chart: servers on PostgreSQL, workers, and Prometheus."""

import re
import signal

from monitoring import Prometheus, tools, wait_for
from cluster import PATIENCE, ClusterTest
from postgres import Postgres

ADMIN = "an-administrators-token"


class LiveTest(ClusterTest):
    def values(self):
        """Of the chart: what is rendered as monitors and rules."""
        return {"metrics": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}},
                "pools": {"cpu": {"autoscaling": {"type": "hpa"}}}}

    def live(self, factor, servers=2, options=()):
        self.database = Postgres()
        self.addCleanup(self.database.close)
        self.addCleanup(self.end)  # before the database
        (self.folder / "token").write_text(ADMIN)
        self.objects = self.folder / "objects"
        self.servers = [
            self.server("--workers", 0, "--store", self.database.uri, "--objects", f"file://{self.objects}",
                        "--admin-token-file", self.folder / "token", *options, token=ADMIN, name=f"server-{i}")
            for i in range(servers)]
        self.prometheus = Prometheus(self.folder / "prometheus", tools.render(self.values()), factor)
        self.addCleanup(self.prometheus.close)
        for server in self.servers:
            self.prometheus.add("server", server.name, server.listen)
        self.started = 0

    def end(self):
        super().end()
        for server in getattr(self, "servers", []):
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGCONT)
                server.kill()

    def pod(self, device="cpu", *options):
        """A worker with its metrics, which Prometheus scrapes; its pod's name is process.pod."""
        self.started += 1
        name = f"worker-{self.started}"
        log = self.folder / f"{name}.err"
        both = ",".join(server.worker_listen for server in self.servers)
        process = self.worker(None, "--device", device, "--metrics-listen", "127.0.0.1:0", *options, connect=both,
                              log=log)
        found = wait_for(f"the metrics of {name}", lambda: re.search(
            r"metrics url=\S*?//(\S+)", log.read_text()) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        self.prometheus.add("worker", name, found[1].rstrip("/"))
        process.pod, process.log = name, log
        return process

    def gone(self, process, number=signal.SIGKILL):
        """The pod ends, and is no longer scraped."""
        process.send_signal(number)
        process.wait(timeout=PATIENCE)
        self.prometheus.remove("worker", process.pod)
