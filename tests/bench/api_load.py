"""How long the HTTP API takes with many jobs queued: submits at a steady rate, lists and gets beside them.

    LONGWAVE=build/longwave python3 tests/bench/api_load.py --jobs 100000

Starts a server of its own (SQLite, no workers), fills it, measures, and starts it again. Prints JSON.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import pathlib
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[2]


class Server:
    def __init__(self, folder, models):
        began = time.monotonic()
        self.process = subprocess.Popen(
            [os.environ.get("LONGWAVE", ROOT / "build/longwave"), "serve", "--data", folder, "--models",
             models, "--listen", "127.0.0.1:0", "--workers", "0"], stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().split("//")[1].strip()
        self.process.stdout.readline()
        client = Client(self.address)
        while client.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.01)
        self.ready_s = time.monotonic() - began

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Client:
    """One connection."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=60)

    def ask(self, method, target, body=None):
        self.connection.request(method, target, body=body)
        response = self.connection.getresponse()
        return response.status, response.read()


def in_threads(count, work):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def steady(address, rate, seconds, request):
    """Times in ms of `request(i)`s that begin at fixed times, whatever those before take."""
    times, lock, threads = [], threading.Lock(), 4
    start = time.monotonic() + 0.1

    def work(me):
        client = Client(address)
        for i in range(me, int(rate * seconds), threads):
            due = start + i / rate
            time.sleep(max(0, due - time.monotonic()))
            status, answer = client.ask(*request(i))
            assert status < 300, answer
            with lock:
                times.append((time.monotonic() - due) * 1000)
    in_threads(threads, work)
    times.sort()
    return {"count": len(times), "p50_ms": round(times[len(times) // 2], 2),
            "p99_ms": round(times[int(len(times) * 0.99)], 2), "max_ms": round(times[-1], 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100000)
    parser.add_argument("--rate", type=float, default=300, help="submits a second")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, ROOT / "examples")
        client = Client(server.address)
        file = json.loads(client.ask("POST", "/v1/files?name=a.txt", b"ACGT")[1])["id"]
        job = json.dumps({"model": "h3-dna", "input": file})
        submit = ("POST", "/v1/jobs", job)
        ids, began = [], time.monotonic()

        def fill(me):
            client = Client(server.address)
            for _ in range(me, options.jobs, 16):
                status, answer = client.ask(*submit)
                assert status == 201, answer
                ids.append(json.loads(answer)["id"])
        in_threads(16, fill)
        result = {"jobs": len(ids), "fill_per_second": round(len(ids) / (time.monotonic() - began))}
        lists = ["/v1/jobs", "/v1/jobs?state=queued&limit=100", "/v1/jobs?model=h3-dna&task=score"]
        parts = {"submit": (options.rate, lambda i: submit),
                 "list": (20, lambda i: ("GET", lists[i % 3])),
                 "get": (100, lambda i: ("GET", f"/v1/jobs/{ids[i * 7919 % len(ids)]}"))}

        def measure(name, answer):
            answer.put((name, steady(server.address, parts[name][0], options.seconds, parts[name][1])))
        answers = multiprocessing.Queue()
        processes = [multiprocessing.Process(target=measure, args=(name, answers)) for name in parts]
        for process in processes:  # not threads: they would wait for each other
            process.start()
        result.update(answers.get() for _ in processes)
        for process in processes:
            process.join()
        server.stop()
        server = Server(folder, ROOT / "examples")
        result["restart_to_ready_s"] = round(server.ready_s, 3)
        server.stop()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
