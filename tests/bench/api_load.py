#!/usr/bin/env python3
"""How long the HTTP API takes with many jobs queued, and how soon a server that was killed is back.

    LONGWAVE=build/longwave python3 tests/bench/api_load.py [--jobs 100000] [--json OUT] [--only sqlite]

A server is filled with jobs of one small file by several connections. Then a process for each of submits, lists and
gets sends them at fixed times, whatever those before take, over connections that stay open. A time is from when a
request was due to the end of its answer: what waits for a connection, or for this program, counts.

Measured while the server still plans what it was given (`planning`), once it has nothing to do (`idle`), and while
simulated workers compute (`working`). Then it is killed (SIGKILL) and started again. On SQLite and on PostgreSQL, which
flushes to the disk here. Standard library alone."""

import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import platform
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "cluster"))
from cluster import PROGRAM, SOURCE, Server, wait_for  # noqa: E402
from postgres import Postgres  # noqa: E402

MODEL = "h3-dna"
FILL_CONNECTIONS = 16
CONNECTIONS = 16  # of each kind of request


def message(method, target, body=b""):
    return (f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


class Connection:
    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def send(self, request):
        self.socket.sendall(request)

    def answer(self):
        """(status, body), once it is all there; reads what has come."""
        block = self.socket.recv(1 << 18)
        assert block, "the server closed the connection"
        self.received += block
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return None
        self.received = b""
        return int(head.split(b" ", 2)[1]), body

    def ask(self, *request):
        self.send(message(*request))
        while (answer := self.answer()) is None:
            pass
        return answer


def open_loop(address, rate, seconds, request):
    """Times in ms, from when each was due, of `rate` requests a second."""
    ready = selectors.DefaultSelector()
    free = []
    for _ in range(CONNECTIONS):
        connection = Connection(address)
        connection.socket.setblocking(True)
        ready.register(connection.socket, selectors.EVENT_READ, connection)
        free.append(connection)
    due, times, waiting = {}, [], collections.deque()
    start, sent, count = time.monotonic() + 0.1, 0, int(rate * seconds)
    while len(times) < count:
        now = time.monotonic()
        while sent < count and start + sent / rate <= now:
            waiting.append(sent)
            sent += 1
        while waiting and free:
            connection, i = free.pop(), waiting.popleft()
            due[connection] = start + i / rate
            connection.send(message(*request(i)))
        until = start + sent / rate - time.monotonic() if sent < count else 1
        for key, _ in ready.select(max(0, until)):
            answer = key.data.answer()
            if answer is None:
                continue
            status, body = answer
            assert status < 300, body
            times.append((time.monotonic() - due.pop(key.data)) * 1000)
            free.append(key.data)
    return times


def summary(times):
    times.sort()
    at = lambda part: round(times[min(len(times) - 1, int(len(times) * part))], 2)  # noqa: E731
    return {"count": len(times), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}


def metric(server, name):
    for line in server.request("GET", "/metrics")[2].decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return None


def start(folder, options):
    """(server, seconds until /readyz was 200, and until it led)"""
    began = time.monotonic()
    server = Server(folder, *options)
    wait_for("readiness", lambda: server.request("GET", "/readyz")[0] == 200, pause=0.005)
    ready = time.monotonic() - began
    wait_for("leadership", lambda: metric(server, "longwave_leader") == 1, pause=0.02)
    return server, round(ready, 3), round(time.monotonic() - began, 3)


class Load:
    def __init__(self, server, options):
        self.server, self.options = server, options
        self.submit = ("POST", "/v1/jobs", json.dumps(
            {"model": MODEL, "input": server.upload(b"ACGT" * 4, "a.txt"), "chunk": 4}).encode())
        self.ids = []

    def fill(self):
        began = time.monotonic()

        def some(me):
            connection = Connection(self.server.listen)
            for _ in range(me, self.options.jobs, FILL_CONNECTIONS):
                status, answer = connection.ask(*self.submit)
                assert status == 201, answer
                self.ids.append(json.loads(answer)["id"])
        threads = [threading.Thread(target=some, args=(i,)) for i in range(FILL_CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(self.ids) == self.options.jobs
        return round(len(self.ids) / (time.monotonic() - began))

    def measure(self):
        # The last two find nothing among all jobs.
        lists = ["/v1/jobs", "/v1/jobs?state=queued&limit=100", f"/v1/jobs?model={MODEL}&task=score",
                 "/v1/jobs?task=logits", f"/v1/jobs?state=failed&model={MODEL}"]
        ids = self.ids
        parts = {"submit": (self.options.rate, lambda i: self.submit),
                 "list": (20, lambda i: ("GET", lists[i % len(lists)])),
                 "get": (100, lambda i: ("GET", f"/v1/jobs/{ids[i * 7919 % len(ids)]}"))}

        def one(name, answer):
            rate, request = parts[name]
            answer.put((name, open_loop(self.server.listen, rate, self.options.seconds, request)))
        answers = multiprocessing.Queue()
        processes = [multiprocessing.Process(target=one, args=(name, answers)) for name in parts]
        load = os.getloadavg()[0]
        for process in processes:  # not threads: they would wait for each other
            process.start()
        times = dict(answers.get() for _ in processes)
        for process in processes:
            process.join()
        return {"load_before": round(load, 1), **{name: summary(times[name]) for name in parts}}

    def unplanned(self):
        """Jobs are planned in order: how many of the newest are not."""
        jobs, cursor = 0, ""
        while True:
            page = self.server.json("GET", f"/v1/jobs?limit=1000{cursor}")
            planned = ["tokens" in job["progress"] for job in page["jobs"]]
            jobs += len(planned) - sum(planned)
            if any(planned) or "next_cursor" not in page:
                return jobs
            cursor = f"&cursor={page['next_cursor']}"


def bench(database, options):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "models").mkdir()
        (folder / "models" / MODEL).symlink_to(SOURCE / "examples" / MODEL)
        postgres = Postgres("fsync=on") if database == "postgres" else None
        serve = ("--workers", "0", *(("--store", postgres.uri) if postgres else ()))
        server, worker = start(folder, serve)[0], None
        try:
            load = Load(server, options)
            result = {"fill_per_second": load.fill()}
            result["planning"] = load.measure()
            before, began = load.unplanned(), time.monotonic()
            wait_for("the plans", lambda: load.unplanned() == 0, seconds=1800, pause=0.5)
            result["planned_per_second"] = round(before / (time.monotonic() - began))
            result["idle"] = load.measure()
            worker = subprocess.Popen([PROGRAM, "worker", "--connect", server.worker_listen, "--device",
                                       "sim:layer_ms=5,layers=8", "--count", "8", "--log-level", "error"])
            wait_for("chunks", lambda: (metric(server, "longwave_chunks_committed_total") or 0) > 10)
            before, began = metric(server, "longwave_chunks_committed_total"), time.monotonic()
            result["working"] = load.measure()
            result["working"]["chunks_per_second"] = round(
                (metric(server, "longwave_chunks_committed_total") - before) / (time.monotonic() - began))
            server.kill()
            worker.kill()
            worker.wait()
            restarts = []
            for _ in range(3):
                server, ready, leads = start(folder, serve)
                restarts.append({"ready_s": ready, "leads_s": leads})
                server.kill()
            result["restart"] = restarts
            return result
        finally:
            if server.process.poll() is None:
                server.kill()
            if worker is not None and worker.poll() is None:
                worker.kill()
            if postgres:
                postgres.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100000)
    parser.add_argument("--rate", type=float, default=300, help="submits a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    parser.add_argument("--json", help="write them here too")
    options = parser.parse_args()
    commit = subprocess.run(["git", "-C", SOURCE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    result = {"commit": commit.stdout.strip(), "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(),
              "machine": platform.machine(), "jobs": options.jobs, "submits_per_second": options.rate,
              "lists_per_second": 20, "gets_per_second": 100, "seconds": options.seconds}
    for database in ("sqlite", "postgres"):
        if options.only in (None, database):
            result[database] = bench(database, options)
            print(database, json.dumps(result[database], indent=2), flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
