"""The scripts around the GPU's tests and benches, as far as they go without one."""

import dataclasses
import gzip
import importlib.util
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import unittest
import xml.etree.ElementTree

from support import PROGRAM, SOURCE, CliTest


def script(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, SOURCE / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bench(CliTest):
    def bench(self, *arguments):
        return self.run_program("bench", "ops", *arguments)

    def test_cpu(self):
        run = self.bench("--json", "--lengths", "300", "--channels", "2", "--seconds", "0.001",
                         "--only", "SsmConv")
        self.assertEqual(run.returncode, 0, run.stderr.decode())
        found = json.loads(run.stdout)
        self.assertEqual(found["device"], "cpu")
        self.assertEqual({row["op"] for row in found["rows"]},
                         {"SsmConv dual", "SsmConv fft", "SsmConv step"})

    def test_a_device_that_is_not_there(self):
        # A build without CUDA, a machine without a driver, or one with fewer than a thousand GPUs.
        self.assert_refused(["--device", "cuda:999", "--json"], "--device cuda:999",
                            program=("bench", "ops"))

    def test_values_that_are_refused(self):
        for arguments, said in ((["--device", "tpu"], "tpu"), (["--device", "cuda:x"], "cuda:x"),
                                (["--device", "cuda:-1"], "cuda:-1"), (["--dtype", "int8"], "int8"),
                                (["--channels", "0"], "channels = 0"),
                                (["--seconds", "0"], "seconds = 0"),
                                (["--only", "nonsense"], "nonsense"),
                                (["--lengths", "0"], "length = 0")):
            with self.subTest(arguments=arguments):
                self.assert_refused(arguments, said, program=("bench", "ops"))


class Bundle(CliTest):
    LDD = """\tlinux-vdso.so.1 (0x00007f)
\tlibhwy.so.1 => /lib/x86_64-linux-gnu/libhwy.so.1 (0x00007f)
\tlibcublasLt.so.13 => not found
\tlibnccl.so.2 => /usr/lib/libnccl.so.2 (0x00007f)
\tlibcuda.so.1 => /usr/lib/libcuda.so.1 (0x00007f)
\tlibgfortran.so.5 => /lib/x86_64-linux-gnu/libgfortran.so.5 (0x00007f)
\tlibabsl_civil_time.so.1 => not found
\tlibstdc++.so.6 => /lib/libstdc++.so.6 (0x00007f)
\tlibgcc_s.so.1 => /lib/libgcc_s.so.1 (0x00007f)
\tlibm.so.6 => /lib/libm.so.6 (0x00007f)
\tlibpthread.so.0 => /lib/libpthread.so.0 (0x00007f)
\tlibc.so.6 => /lib/libc.so.6 (0x00007f)
\tlibmpfr.so.6 => /lib/libmpfr.so.6 (0x00007f)
\tlibcrypto.so.3 => /lib/libcrypto.so.3 (0x00007f)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f)
"""

    def test_which_libraries_come_along(self):
        bring, expected, missing = script("tests/gpu/bundle.py").classify(self.LDD)
        self.assertEqual(bring, {"libhwy.so.1": "/lib/x86_64-linux-gnu/libhwy.so.1",
                                 "libgfortran.so.5": "/lib/x86_64-linux-gnu/libgfortran.so.5",
                                 "libmpfr.so.6": "/lib/libmpfr.so.6",
                                 "libcrypto.so.3": "/lib/libcrypto.so.3"})
        self.assertEqual(expected, ["libcublasLt.so.13", "libnccl.so.2", "libcuda.so.1"])
        self.assertEqual(missing, ["libabsl_civil_time.so.1"])
        self.assertEqual(script("tests/gpu/bundle.py").classify("\tstatically linked\n"), ({}, [], []))

    def test_where_the_cuda_libraries_are(self):
        check = script("tests/gpu/gpu_check.py")
        for folder in ("one", "two"):
            self.path(folder).mkdir()
            self.path(f"{folder}/libcublasLt.so.13", "")
        self.path("two/libnccl.so.2", "")
        patterns = [str(self.path("none")), str(self.path("o*")), str(self.path("t*"))]
        names = ["libcuda.so.1", "libcublasLt.so.13", "libnccl.so.2", "libcufft.so.12"]
        self.assertEqual(check.cuda_folders(names, lambda name: name == "libcuda.so.1", patterns),
                         ([str(self.path("one")), str(self.path("two"))], ["libcufft.so.12"]))

    def test_what_a_test_program_said(self):
        check = script("tests/gpu/gpu_check.py")
        tests = [{"name": "A", "status": "RUN", "result": "COMPLETED"},
                 {"name": "B", "status": "RUN", "result": "SKIPPED"},
                 {"name": "C", "status": "NOTRUN", "result": "SUPPRESSED"},
                 {"name": "D", "status": "RUN", "result": "COMPLETED", "failures": [{"failure": "x"}]}]
        report = self.path("report.json", json.dumps(
            {"testsuites": [{"name": "Suite", "testsuite": tests}]}))
        found = check.summary("a_cuda_test", 1, report, 2.04)
        self.assertEqual((found["tests"], found["passed"], found["skipped"], found["failed"]),
                         (3, 1, 1, 1))
        self.assertEqual(found["failures"], ["Suite.D"])
        # Killed before it reported, or after a report without a failure: not a success.
        self.assertEqual(check.summary("x", -11, self.path("absent.json"), 1)["failed"], 1)
        fine = self.path("fine.json", json.dumps(
            {"testsuites": [{"name": "Suite", "testsuite": tests[:1]}]}))
        self.assertEqual(check.summary("x", -6, fine, 1)["failed"], 1)
        self.assertEqual(check.summary("x", 0, fine, 1)["failed"], 0)

    def test_programs_are_packed_and_unpacked(self):
        check, bundle = script("tests/gpu/gpu_check.py"), script("tests/gpu/bundle.py")
        archive = self.path("programs.tar.xz")
        bundle.pack({"bin/one": PROGRAM, "bin/two": PROGRAM}, archive)
        size = archive.stat().st_size
        bundle.pack({"bin/one": PROGRAM}, archive)
        self.assertLess(size, 1.1 * archive.stat().st_size)  # what is the same is packed once
        check.HERE = self.folder
        built = f"test {os.getpid()}{time.time_ns()}"
        folder = check.unpack({"built": built})
        self.addCleanup(shutil.rmtree, folder)
        self.assertTrue(os.access(folder / "bin" / "one", os.X_OK))
        self.assertEqual(subprocess.run([folder / "bin" / "one", "--version"], check=False,
                                        stdout=subprocess.DEVNULL).returncode, 0)
        self.assertEqual(check.unpack({"built": built}), folder)  # once

    def test_only_a_bundle_is_replaced(self):
        self.path("build").mkdir()
        self.path("precious").mkdir()
        self.path("precious/file", "kept")
        self.path("build/bin").mkdir()
        for name in ("longwave", "bin/kernels_cuda_test", "bin/worker_test", "bin/golden_test",
                     "bin/golden_slow_test", "bin/links_cuda_test"):
            self.path(f"build/{name}", "").chmod(0o755)
        run = subprocess.run([sys.executable, "-B", str(SOURCE / "tests/gpu/bundle.py"), "--build",
                              str(self.path("build")), "--out", str(self.path("precious"))],
                             capture_output=True, text=True, check=False)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("is no bundle", run.stderr)
        self.assertEqual(self.path("precious/file").read_text(), "kept")


FAKE_TORCH = """
import contextlib, sys, types
class Tensor:
    shape = (1, 1, 4096)
    def numel(self): return 1 << 20
    def item(self): return 1e-3
    def __getattr__(self, name): return lambda *a, **k: self
    def __getitem__(self, key): return self
    def __call__(self, *a, **k): return self
for op in ("mul", "rmul", "matmul", "sub", "truediv"):
    setattr(Tensor, f"__{op}__", lambda self, other: self)
class Event:
    def __init__(self, enable_timing): assert enable_timing
    def record(self): pass
    def synchronize(self): pass
    def elapsed_time(self, other): return 2.0
tensor = Tensor()
empty = empty_like = randn = randn_like = randint = ones_like = dot = stack = lambda *a, **k: tensor
Generator = device = lambda *a, **k: contextlib.nullcontext(tensor) if not k else tensor
no_grad = inference_mode = contextlib.nullcontext
bfloat16, float16, int8, uint8, __version__ = "bf16", "fp16", "i8", "u8", "0.0"
cuda = types.SimpleNamespace(
    Event=Event, is_available=lambda: True, get_device_name=lambda i: "Fake", empty_cache=lambda: None,
    synchronize=lambda: None, get_device_properties=lambda i: types.SimpleNamespace(L2_cache_size=1))
version = types.SimpleNamespace(cuda="0.1")
fft = types.SimpleNamespace(rfft=lambda *a, **k: tensor, irfft=lambda *a, **k: tensor)
class functional(types.ModuleType):
    @staticmethod
    def scaled_dot_product_attention(q, k, v, is_causal):
        assert is_causal
nn = types.ModuleType("torch.nn"); nn.functional = functional
attention = types.ModuleType("torch.nn.attention")
attention.sdpa_kernel = lambda backend: contextlib.nullcontext()
attention.SDPBackend = types.SimpleNamespace(FLASH_ATTENTION=1, CUDNN_ATTENTION=2)
sys.modules.update({"torch.nn": nn, "torch.nn.functional": functional, "torch.nn.attention": attention})
"""
FAKE_PROGRAM = """#!/usr/bin/env python3
import json, sys
if "--help" in sys.argv:
    print("  ops   x\\n  model x")
elif "model" in sys.argv:
    print(json.dumps({"rows": [{"shape": "H3-1.3B", "prompt": 512, "new_tokens": 128,
                                "tokens_per_second": 1e6}]}))
else:
    op = sys.argv[sys.argv.index("--only") + 1]
    print(json.dumps({"gpu": "Fake", "version": "0", "failures": [], "rows": [
        {"op": name, "dtype": "bfloat16", "batch": 1, "length": 4096, "channels": 768,
         "ps_per_token_channel": 2.0, "ps_fastest": 2.0, "ps_slowest": 2.0} for name in ("copy", op)]}))
"""


class Peers(CliTest):
    """The script's own way, with a torch that computes nothing."""

    def test_table_and_json(self):
        self.path("torch.py", FAKE_TORCH)
        program = self.path("longwave", FAKE_PROGRAM)
        program.chmod(0o755)
        (self.folder / "transformers.py").write_text(
            "from torch import tensor\n"
            "GPT2Config = GPT2LMHeadModel = lambda *a, **k: tensor\n")
        out = self.path("peers.json")
        run = subprocess.run(
            [sys.executable, "-B", str(SOURCE / "tests/bench/gpu_peers.py"), "--lengths", "4096,1048576",
             "--prompts", "512", "--json", str(out), "--longwave", str(program)],
            env=dict(os.environ, PYTHONPATH=str(self.folder)), capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        found = json.loads(out.read_text())
        self.assertEqual(found["kind"], "gpu-peers")
        self.assertEqual({row["op"] for row in found["longwave"]["ops"]["rows"]},
                         {"SsmConv dual", "H3Mix", "LongConv"})
        peers = {(row["op"], row["length"]) for row in found["peers"] if "failed" not in row}
        self.assertEqual(peers, {("torch.fft", 4096), ("torch.fft", 1 << 20),
                                 ("FlashAttention-2", 4096), ("cuDNN attention", 4096)})
        row = next(row for row in found["peers"] if row["op"] == "torch.fft")
        self.assertAlmostEqual(row["ps_per_token_channel"], 2e9 / (768 << 20))
        self.assertTrue(any("flashfftconv" in text for text in found["left_out"]))
        self.assertIn("times faster: SsmConv dual bf16", run.stdout)
        self.assertRegex(run.stdout, r"prompt 512: \d+ tokens/s; Longwave 1000000, ")
        page = script("docs/benchmarks/gpu_page.py")
        self.assertIn("torch.fft bf16", page.make_page(self.folder)["gpu.md"])

    def test_no_such_part(self):
        self.path("torch.py", FAKE_TORCH)
        run = subprocess.run([sys.executable, "-B", str(SOURCE / "tests/bench/gpu_peers.py"), "--only", "x"],
                             env=dict(os.environ, PYTHONPATH=str(self.folder)), capture_output=True,
                             text=True, check=False)
        self.assertEqual(run.returncode, 2)
        self.assertIn("--only x", run.stderr)


class Scaling(CliTest):
    """The bench of several workers, with processors or simulated devices in place of GPUs."""

    def bench(self, *arguments, code=0):
        run = subprocess.run(
            [sys.executable, "-B", str(SOURCE / "tests/bench/scaling.py"), "--longwave", PROGRAM, "--models",
             "tiny", "--tokens", "16K,32K", "--chunk", "2K", "--repeat", "1", "--out",
             str(self.path("scaling")), *arguments], capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, code, run.stderr)
        return json.loads(self.path("scaling/results.json").read_text()), run

    def test_ways_give_the_same_bytes(self):
        found, run = self.bench("--devices", "cpu")
        self.assertEqual({(row["workers"], row["way"]) for row in found["rows"]},
                         {(1, "one"), (2, "zmq"), (2, "wave")})
        self.assertEqual((found["problems"], found["failures"]), ([], []))
        self.assertRegex(run.stdout, r"\| 16K \| 2K \| 2 \| zmq \| [\d.]+ \|")
        outputs = {}
        for row in found["rows"]:
            outputs.setdefault((row["tokens"], row["chunk"]), set()).update(row["sha256"])
            self.assertTrue(row["workers"] == 1 or row["links"]["zmq"]["received_bytes"] > 0, row)
        self.assertEqual({len(each) for each in outputs.values()}, {1}, outputs)
        self.assertEqual(len({row["bytes_a_border"] for row in found["rows"] if row["workers"] == 2}), 1)
        trace = json.loads(gzip.decompress(self.path("scaling/trace-tiny-2-zmq.json.gz").read_bytes()))
        self.assertEqual({event["args"].get("chunk") for event in trace["traceEvents"] if event["ph"] == "X"},
                         set(range(8)))

    def test_simulated_and_a_failure(self):
        found, run = self.bench("--devices", "sim:layer_ms=1,layers=2,state_bytes=1", code=1)
        self.assertEqual(found["rows"], [])
        self.assertIn("state_bytes=1", found["failures"][0]["error"])
        found, _ = self.bench("--devices", "sim:layer_ms=1,layers=2", "--count", "4", "--links", "zmq")
        self.assertEqual({row["workers"] for row in found["rows"]}, {1, 2, 4})

    def test_no_such_shape(self):
        run = subprocess.run([sys.executable, "-B", str(SOURCE / "tests/bench/scaling.py"), "--models", "huge"],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 2)
        self.assertIn("huge", run.stderr)


class ScalingModel(unittest.TestCase):
    """What docs/scaling.md says: its formula against the recurrence, and the fit against runs that it made."""

    def setUp(self):
        sys.path.insert(0, str(SOURCE / "docs/benchmarks"))
        self.addCleanup(sys.path.remove, str(SOURCE / "docs/benchmarks"))
        self.model = importlib.import_module("scaling_model")

    def test_formula(self):
        for chunks, workers, layer, handover, dispatch in ((16, 8, 2e-3, 5e-4, 0), (17, 8, 2e-3, 5e-4, 1e-4),
                                                           (64, 1, 1e-3, 1e-3, 0), (600, 200, 1e-4, 1e-3, 0),
                                                           (600, 200, 1e-4, 1e-5, 2e-3)):
            run = self.model.Run(12, layer, 1e-3, 0.25, handover, 0.01, dispatch)
            for wave in (False, True):
                self.assertAlmostEqual(run.seconds(chunks, workers, wave), run.closed(chunks, workers, wave), 9)

    def test_wavefront_of_one_chunk_each(self):
        run = self.model.Run(24, 1e-3)
        self.assertAlmostEqual(run.efficiency(8, 8, wave=True), 24 / 31, 9)

    def test_fit(self):
        several = self.model.Run(12, 2e-3, 0.021, 0.25, 4e-4, 0.01)  # 1 ms a round more than alone
        rows = []
        for workers, run in ((1, dataclasses.replace(several, head=0.02)), (2, several), (4, several)):
            for chunks in (16, 64):
                seconds = run.seconds(chunks, workers)
                rows.append({"workers": workers, "way": "one" if workers == 1 else "zmq", "tokens": chunks,
                             "chunk": 1, "seconds": [seconds, 2 * seconds], "first_commit_seconds": run.chunk,
                             "last_commit_seconds": run.chunk * chunks})
        fit = self.model.fit(rows, "zmq")
        for value, expected in ((fit.chunk, 0.044), (fit.job, 0.01), (fit.round, 1e-3), (fit.handover, 4e-4)):
            self.assertAlmostEqual(value, expected, 9)
        self.assertIsNone(self.model.fit(rows, "nccl"))

    def test_the_committed_page(self):
        run = subprocess.run([sys.executable, "-B", str(SOURCE / "docs/benchmarks/scaling_page.py"), "--check"],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)


class Page(CliTest):
    def row(self, op, length, ps, dtype="bfloat16", **more):
        return {"op": op, "dtype": dtype, "batch": 1, "length": length, "channels": 4,
                "ps_per_token_channel": ps, "ps_fastest": ps, "ps_slowest": ps,
                "gigabytes_per_second": 1.0, "teraflops": 2.0, "baseline": "copy", "ratio": 0.5,
                "relative_error": 1e-3, **more}

    def write_runs(self):
        device = {"name": "A <GPU> & more", "driver_version": "1.2"}
        head = {"commit": "0123456789abcdef", "changes": False, "device": device}
        rows = [self.row("SsmConv dual", n, 3.0) for n in (256, 4096)] + [self.row("LongConv", 4097, 8.0)]
        peers = [self.row("torch.fft", 256, 30.0), self.row("torch.fft", 4096, 60.0),
                 {"op": "FlashFFTConv", "length": 256, "failed": "no | such thing"}]
        self.path("peers.json", json.dumps(
            {**head, "kind": "gpu-peers", "date": "2000-01-02T00:00:00",
             "ceilings": {"copy_gigabytes_per_second": 2000.0, "matmul_teraflops": 500.0},
             "longwave": {"ops": {"rows": rows}}, "peers": peers, "left_out": ["X: not there"]}))
        for name, date in (("new.json", "2000-01-03"), ("old.json", "2000-01-01")):
            self.path(name, json.dumps(
                {**head, "kind": "gpu-check", "date": date,
                 "tests": [{"program": "a_cuda_test", "tests": 3, "passed": 2, "skipped": 0, "failed": 1,
                            "seconds": 1.5, "failures": ["Suite.Name"]}],
                 "ops": {"rows": rows + [self.row("copy", 4096, 2.0), self.row("SsmConv step", 1, 90.0)],
                         "failures": [{"op": "H3Mix", "dtype": "bfloat16", "length": 256, "channels": 4,
                                       "reason": "out of memory"}]}}))
        self.path("other.json", "[1, 2]")

    def page(self, *arguments):
        return subprocess.run([sys.executable, "-B", str(SOURCE / "docs/benchmarks/gpu_page.py"),
                               "--folder", str(self.folder), *arguments], capture_output=True, text=True,
                              check=False)

    def test_tables_and_plots(self):
        self.write_runs()
        self.path("gpu-stale.svg", "")
        self.assertNotEqual(self.page("--check").returncode, 0)
        self.assertEqual(self.page().returncode, 0)
        self.assertEqual(self.page("--check").returncode, 0)
        text = self.path("gpu.md").read_text()
        self.assertIn("| 256 | 3.00 |  | 30.0 |", text)  # ours, and torch.fft of the same run
        self.assertIn("| 4K | 20.0 |", text)  # 60 / 3
        self.assertIn("less than 2.00 ps", text)  # 4 bytes at 2000 GB/s
        for said in ("0123456789ab", "| a_cuda_test | 2 | 0 | 1 | 1.5 |", "failed: Suite.Name",
                     "H3Mix bf16, 256 tokens: out of memory", "X: not there", "no | such thing"):
            self.assertIn(said, text)
        self.assertEqual(text.count("## Tests and operators"), 1)
        self.assertIn("old.json", text[text.index("## Earlier runs"):])
        plots = sorted(set(re.findall(r"\((gpu-[^)]*\.svg)\)", text)))
        self.assertEqual(plots, [name for name in self.files() if name.endswith(".svg")])
        for name in plots:
            root = xml.etree.ElementTree.parse(self.path(name)).getroot()
            self.assertTrue(root.tag.endswith("svg"))
            self.assertNotIn("nan", self.path(name).read_text())

    def test_the_committed_page(self):
        run = subprocess.run([sys.executable, "-B", str(SOURCE / "docs/benchmarks/gpu_page.py"), "--check"],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_nothing_yet(self):
        self.assertEqual(self.page().returncode, 0)
        self.assertEqual(self.files(), ["gpu.md"])
        self.assertIn("No run", self.path("gpu.md").read_text())

    def test_labels_keep_their_distance(self):
        page = script("docs/benchmarks/gpu_page.py")
        placed = page.spread_out([10, 11, 200, 12], 15)
        for a, b in zip(sorted(placed), sorted(placed)[1:]):
            self.assertGreaterEqual(b - a, 15 - 1e-3)
        self.assertEqual(placed[2], 200)
        self.assertEqual([page.number(v) for v in (0.0, 1234.6, 1.5, 0.0123, 2e-4, 7, "x")],
                         ["0.0", "1,235", "1.50", "0.0123", "2.0e-04", "7", "x"])
        self.assertEqual([page.human(n) for n in (256, 4096, 4097, 1 << 22)], ["256", "4K", "4,097", "4M"])
        self.assertTrue(math.isfinite(placed[0]))


if __name__ == "__main__":
    unittest.main()
