#!/usr/bin/env python3
"""Makes the folder that `./dev gpu-bundle` is named for: the GPU's tests and the program, with all
that they need on a machine with no more than NVIDIA's driver, the CUDA libraries and Python 3.

    tests/gpu/bundle.py [--build build] [--out gpu-bundle]

    gpu-check           runs the tests, then the benches (tests/gpu/gpu_check.py)
    programs.tar.xz     bin/: the programs, stripped; lib/: the distribution's libraries that they
                        load. Each program has all kernels, so packed together they take little more
                        than one. gpu-check unpacks them.
    tests/, examples/   golden cases and models, where the tests look for them; the peers' script
    bundle.json         the commit, and what is expected of the machine

Needs ldd and strip. The standard library of Python only.
"""

import argparse
import datetime
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
MOST_BYTES = 60 << 20
WINDOW = 96 << 20  # in which the packer finds what it has seen before: a program and more

# What gpu-check runs: the operators, the tests of models, which also know the GPU, and the links
# between two GPUs.
TESTS = ["kernels_cuda_test", "worker_test", "golden_test", "golden_slow_test", "links_cuda_test"]
DATA = ["tests/golden/*/*.json", "tests/golden/*/*.safetensors", "examples/*/*.json",
        "examples/*/*.safetensors", "examples/*.gz", "examples/*.txt", "tests/bench/gpu_peers.py",
        "tests/bench/scaling.py", "tests/bench/bench_cluster.py", "tests/bench/random_model.py",
        "tests/bench/pipeline.py", "tests/cluster/cluster.py", "tests/cli/support.py"]

# Every Linux with a C++ compiler's runtime has these, and mixing in another machine's would break it.
SYSTEM = re.compile(r"^(linux-vdso|ld-linux.*|lib(c|m|pthread|dl|rt|resolv|util|stdc\+\+|gcc_s))\.so")
# These belong to the driver or to the CUDA installation, and fit it.
CUDA = re.compile(r"^lib(cuda|cudart|cublas|cublasLt|cufft|curand|cusolver|cusparse|nvrtc.*|nvJitLink|"
                  r"nvidia-.*|nccl)\.so")


def fail(message):
    sys.exit(f"gpu-bundle: {message}")


def classify(ldd_output):
    """From what ldd says: ({name: path} to bring along, names expected of the machine, names that
    are nowhere)."""
    bring, expected, missing = {}, [], []
    for line in ldd_output.splitlines():
        words = line.split()
        if not words or words[0] == "statically":
            continue
        name = os.path.basename(words[0])
        if SYSTEM.match(name):
            continue
        if CUDA.match(name):
            expected.append(name)
        elif "=>" not in words:
            continue  # by its full path: nothing that a folder could replace
        elif words[words.index("=>") + 1] == "not":
            missing.append(name)
        else:
            bring[name] = words[words.index("=>") + 1]
    return bring, expected, missing


def libraries(programs):
    bring, expected = {}, set()
    for program in programs:
        found = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
        if found.returncode:
            fail(f"ldd {program}: {found.stderr.strip()}")
        paths, of_cuda, missing = classify(found.stdout)
        if missing:
            fail(f"{program} needs {', '.join(missing)}, which are not on this machine")
        bring.update(paths)
        expected.update(of_cuda)
    return bring, sorted(expected)


def pack(files, archive):
    """files: {name in the archive: path}; stripped on the way."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": WINDOW}]
    with tempfile.TemporaryDirectory() as folder, lzma.open(archive, "wb", filters=filters) as packed, \
            tarfile.open(fileobj=packed, mode="w") as tar:
        for name, path in files.items():
            copy = pathlib.Path(folder) / "file"
            shutil.copyfile(path, copy)  # what a link points at, under the name that is looked for
            how = "--strip-all" if name.startswith("bin/") else "--strip-unneeded"
            subprocess.run(["strip", how, str(copy)], check=True)
            copy.chmod(0o755)
            tar.add(copy, arcname=name)


def git(*arguments):
    try:
        return subprocess.run(["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def write_bundle(programs, out):
    """Into `out`, a new folder. Returns its size in bytes."""
    bring, expected = libraries(programs)
    files = {f"bin/{program.name}": program for program in programs}
    files.update((f"lib/{name}", path) for name, path in sorted(bring.items()))
    pack(files, out / "programs.tar.xz")
    for pattern in DATA:
        for path in sorted(SOURCE.glob(pattern)):
            target = out / path.relative_to(SOURCE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.copy(SOURCE / "tests" / "gpu" / "gpu_check.py", out / "gpu-check")
    os.chmod(out / "gpu-check", 0o755)
    about = {"commit": git("rev-parse", "HEAD") or "unknown",
             "changes": bool(git("status", "--porcelain", "--untracked-files=no")),
             "built": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
             "expected_libraries": expected}
    (out / "bundle.json").write_text(json.dumps(about, indent=1) + "\n")
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def main():
    parser = argparse.ArgumentParser(prog="./dev gpu-bundle", description="One folder for a GPU machine")
    parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build")
    parser.add_argument("--out", type=pathlib.Path, default=SOURCE / "gpu-bundle")
    options = parser.parse_args()

    programs = [options.build / "longwave", *(options.build / "bin" / name for name in TESTS)]
    for program in programs:
        if not os.access(program, os.X_OK):
            fail(f"{program} is not built: run ./dev gpu-bundle")
    if options.out.exists() and not (options.out / "bundle.json").exists() and any(options.out.iterdir()):
        fail(f"{options.out} is there and is no bundle; it stays as it is")
    partial = options.out.with_name(options.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    size = write_bundle(programs, partial)
    if size > MOST_BYTES:
        largest = sorted((path for path in partial.rglob("*") if path.is_file()),
                         key=lambda path: -path.stat().st_size)[:8]
        fail(f"{size / 2**20:.1f} MiB are more than {MOST_BYTES >> 20} MiB; the largest files: "
             + ", ".join(f"{p.relative_to(partial)} {p.stat().st_size / 2**20:.1f}" for p in largest))
    shutil.rmtree(options.out, ignore_errors=True)
    partial.rename(options.out)
    print(f"gpu-bundle: {options.out}, {size / 2**20:.1f} MiB, "
          f"{', '.join(program.name for program in programs)}; run gpu-check in it")


if __name__ == "__main__":
    main()
