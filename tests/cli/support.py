"""What the tests of the command line share: running the program, and its files read and
written with the standard library alone."""

import array
import ast
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ.get("LONGWAVE_SOURCE", pathlib.Path(__file__).parents[2]))
PROGRAM = os.environ.get("LONGWAVE", str(SOURCE / "build" / "longwave"))
# Of a program built with the thread sanitizer: without these it takes libzmq for one race.
os.environ.setdefault("TSAN_OPTIONS", "halt_on_error=1:second_deadlock_stack=1:"
                      f"suppressions={SOURCE / 'tests' / 'tsan.supp'}")
DNA = SOURCE / "examples" / "h3-dna"  # bytes
TEXT = SOURCE / "examples" / "h3-text"  # bytes, one attention layer
IDS = SOURCE / "tests" / "golden" / "h3-pure-hd1"  # no tokenizer, vocabulary 104
LONG = SOURCE / "tests" / "golden" / "h3-long"  # no tokenizer, vocabulary 64
S4D = SOURCE / "tests" / "golden" / "s4d"  # a layer over float32 values

CODES = {"<f4": "f", "<i4": "i", "<i8": "q"}


def write_npy(path, values, shape=None, dtype="<i4", fortran=False):
    shape = (len(values),) if shape is None else tuple(shape)
    header = repr({"descr": dtype, "fortran_order": fortran, "shape": shape})
    header += " " * (-(len(header) + 11) % 64) + "\n"
    data = array.array(CODES[dtype], values).tobytes()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def read_npy(path):
    """(values, shape)"""
    data = pathlib.Path(path).read_bytes()
    assert data[:6] == b"\x93NUMPY", path
    size, start = (struct.unpack("<H", data[8:10])[0], 10) if data[6] == 1 else (
        struct.unpack("<I", data[8:12])[0], 12)
    header = ast.literal_eval(data[start:start + size].decode())
    assert not header["fortran_order"]
    values = array.array(CODES[header["descr"]])
    values.frombytes(data[start + size:])
    assert len(values) == math.prod(header["shape"]), header
    return values, header["shape"]


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return tensors


def write_safetensors(path, tensors, edit=None):
    """edit(header): a last change to the header, to spoil it."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    if edit:
        edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def tensor(path, name):
    dtype, shape, data = read_safetensors(path)[name]
    values = array.array({"F32": "f", "I32": "i", "U8": "B"}[dtype])
    values.frombytes(data)
    return values, shape


class CliTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="longwave-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name, content=None):
        path = self.folder / name
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def npy(self, name, values, shape=None, dtype="<i4", **options):
        write_npy(self.path(name), values, shape, dtype, **options)
        return self.path(name)

    def files(self):
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*"))

    def states(self):
        """Names, and of files when they were last written."""
        paths = ((name, self.folder / name) for name in self.files())
        return {name: path.is_file() and path.stat().st_mtime_ns for name, path in paths}

    def run_program(self, *arguments, stdin=b"", **options):
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("timeout", 300)
        return subprocess.run([PROGRAM, *map(str, arguments)], input=stdin,
                              stderr=subprocess.PIPE, **options)

    def run_ok(self, *arguments, stdin=b"", **options):
        result = self.run_program("run", *arguments, stdin=stdin, **options)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result

    def run_json(self, *arguments, stdin=b""):
        result = self.run_ok(*arguments, "--json", stdin=stdin)
        self.assertEqual(result.stdout.count(b"\n"), 1)
        return json.loads(result.stdout)

    def score(self, model, source, *arguments, stdin=b""):
        """(values, shape) of the output."""
        out = self.path("score-of-test.npy")
        self.run_ok(model, source, "--out", out, "--quiet", *arguments, stdin=stdin)
        values = read_npy(out)
        out.unlink()
        return values

    def assert_refused(self, arguments, *said, code=2, program=("run",), **options):
        """One line on standard error that says `said`, the exit code, no file made or changed."""
        before = self.states()
        result = self.run_program(*program, *arguments, **options)
        error = result.stderr.decode()
        self.assertEqual(result.returncode, code, error)
        self.assertRegex(error, r"\Alongwave: [^\n]+\n\Z")
        for text in said:
            self.assertIn(str(text), error)
        self.assertFalse(result.stdout)
        self.assertEqual(before, self.states())
        return error

    def assert_close(self, got, expected, tolerance):
        self.assertEqual(len(got), len(expected))
        for i, (a, b) in enumerate(zip(got, expected)):
            if math.isnan(b):
                self.assertTrue(math.isnan(a), i)
            else:
                self.assertLessEqual(abs(a - b), tolerance, f"at {i}: {a} and {b}")
