#!/usr/bin/env python3
"""Runs Longwave's GPU tests, then its benches, and writes one JSON file of both.

    ./gpu-check [--tests-only | --bench-only] [--sanitize] [--filter PATTERN] [--out FILE]
    ./gpu-check --run longwave bench ops --device cuda:0    any of its programs, with its libraries
    eval "$(./gpu-check --env)"                             the same for a shell or a profiler
    ./gpu-check --filter 'Nccl*:LinkChain*' --tests-only    the links alone; they need two GPUs

Stands in the folder that `./dev gpu-bundle` makes. Needs NVIDIA's driver, the CUDA libraries (found by
the loader, in /usr/local/cuda*, or in a Python's nvidia packages) and the standard library of Python 3;
--sanitize needs compute-sanitizer. Exit code: 0; 1 where a test, a bench or a sanitizer found anything
wrong; 2 where nothing could be run.
"""

import argparse
import ctypes
import datetime
import glob
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# The test programs and which of their tests need a GPU; the first two go under the sanitizers.
TESTS = {"kernels_cuda_test": "*", "worker_test": "*Device*", "golden_test": "*", "golden_slow_test": "*",
         "links_cuda_test": "*"}
# Loaded while a program runs, where it is.
OPTIONAL_LIBRARIES = ["libnccl.so.2"]
SANITIZED = ["kernels_cuda_test", "worker_test"]
SANITIZERS = {"memcheck": r"ERROR SUMMARY: (\d+) error", "racecheck": r"RACECHECK SUMMARY: (\d+) hazard"}


def say(message):
    print(f"gpu-check: {message}", flush=True)


def refuse(message):
    print(f"gpu-check: {message}", file=sys.stderr)
    sys.exit(2)


# ---- libraries ----


def unpack(about):
    """The folder of this user's with the bundle's programs and libraries; the bundle stays as it is."""
    folder = pathlib.Path(tempfile.gettempdir()) / (
        f"longwave-gpu-check-{os.getuid()}-{re.sub('[^0-9]', '', about['built'])}")
    if folder.exists():
        if folder.stat().st_uid != os.getuid():
            refuse(f"{folder} belongs to somebody else")
        return folder
    partial = pathlib.Path(tempfile.mkdtemp(prefix="longwave-gpu-check-"))
    with tarfile.open(HERE / "programs.tar.xz") as tar:
        tar.extractall(partial, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    try:
        partial.rename(folder)
    except OSError:  # another gpu-check was first
        shutil.rmtree(partial)
    return folder


def cuda_folders(names, loads=None, patterns=None):
    """Folders in which the loader must look for the CUDA libraries `names`, and those found nowhere."""

    def load(name):
        try:
            ctypes.CDLL(name)
            return True
        except OSError:
            return False

    if patterns is None:
        patterns = ["/usr/local/cuda/lib64", "/usr/local/cuda*/lib64",
                    "/usr/local/cuda*/targets/x86_64-linux/lib", "/usr/lib/x86_64-linux-gnu"]
        pythons = [*sys.path, *site_packages("python3")]
        patterns += [os.path.join(p, "nvidia", "*", "lib") for p in pythons if p.endswith("-packages")]
    folders, nowhere = [], []
    for name in names:
        if (loads or load)(name):
            continue
        found = [folder for pattern in patterns for folder in sorted(glob.glob(pattern))
                 if os.path.exists(os.path.join(folder, name))]
        if not found:
            nowhere.append(name)
        elif found[0] not in folders:
            folders.append(found[0])
    return folders, nowhere


def site_packages(python):
    """Of the python3 on the PATH, which may be another one than ours."""
    try:
        found = subprocess.run([python, "-c", "import sys; print('\\n'.join(sys.path))"],
                               capture_output=True, text=True, check=True, timeout=60)
        return [line for line in found.stdout.splitlines() if line]
    except (OSError, subprocess.SubprocessError):
        return []


def environment(about, programs):
    folders, nowhere = cuda_folders(about["expected_libraries"])
    if nowhere:
        refuse(f"{', '.join(nowhere)} not found: neither by the loader, nor in /usr/local/cuda*, nor in "
               "a Python's nvidia packages")
    folders += [f for f in cuda_folders(OPTIONAL_LIBRARIES)[0] if f not in folders]
    paths = [programs / "lib", *folders, os.environ.get("LD_LIBRARY_PATH", "")]
    result = dict(os.environ, LONGWAVE_SOURCE=str(HERE), LONGWAVE=str(programs / "bin" / "longwave"))
    result["LD_LIBRARY_PATH"] = ":".join(str(path) for path in paths if path)
    return result


# ---- the machine ----


def machine():
    fields = ["name", "driver_version", "memory.total", "clocks.max.sm", "power.limit", "compute_cap"]
    found = {"python": sys.version.split()[0]}
    try:
        rows = subprocess.run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
                              capture_output=True, text=True, check=True, timeout=60).stdout
        first = [part.strip() for part in rows.splitlines()[0].split(",")]
        found.update(zip((field.replace(".", "_") for field in fields), first))
        found["count"] = len(rows.splitlines())
        banner = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=True,
                                timeout=60).stdout
        version = re.search(r"CUDA Version: *([\d.]+)", banner)
        found["cuda"] = version.group(1) if version else "unknown"
    except (OSError, IndexError, subprocess.SubprocessError):
        found["name"] = "unknown: nvidia-smi did not answer"
    return found


# ---- tests ----


def run_tests(options, env):
    results = []
    for program in (options.programs / name for name in TESTS):
        say(f"{program.name}")
        with tempfile.TemporaryDirectory() as folder:
            report = pathlib.Path(folder) / "report.json"
            command = [str(program), "--gtest_brief=1", f"--gtest_output=json:{report}",
                       f"--gtest_filter={options.filter or TESTS[program.name]}"]
            begin = time.monotonic()
            code = subprocess.run(command, env=env, cwd=HERE, check=False).returncode
            results.append(summary(program.name, code, report, time.monotonic() - begin))
        r = results[-1]
        say(f"{r['program']}: {r['passed']} passed, {r['skipped']} skipped, {r['failed']} failed "
            f"in {r['seconds']:.1f} s" + (f"; it ended with code {code}" if code else ""))
    return results


def summary(name, code, report, seconds):
    """What a run's GoogleTest report says; a program that died before it wrote one has failed."""
    result = {"program": name, "exit": code, "seconds": round(seconds, 1), "tests": 0, "passed": 0,
              "failed": 0, "skipped": 0, "failures": []}
    try:
        suites = json.loads(report.read_text())["testsuites"]
    except (OSError, ValueError, KeyError):
        result["failed"], result["failures"] = 1, ["(the program ended without a report)"]
        return result
    for suite in suites:
        for test in suite["testsuite"]:
            if test.get("status") == "NOTRUN":
                continue
            result["tests"] += 1
            if test.get("failures"):
                result["failed"] += 1
                result["failures"].append(f"{suite['name']}.{test['name']}")
            elif test.get("result") == "SKIPPED":
                result["skipped"] += 1
            else:
                result["passed"] += 1
    if code and not result["failed"]:
        result["failed"], result["failures"] = 1, [f"(the program ended with code {code})"]
    return result


def sanitizer():
    for path in (shutil.which("compute-sanitizer"), *sorted(glob.glob(
            "/usr/local/cuda*/bin/compute-sanitizer"))):
        if path and os.access(path, os.X_OK):
            return path
    refuse("--sanitize: compute-sanitizer is neither on the PATH nor in /usr/local/cuda*/bin")


def run_sanitizers(options, env):
    program, results = sanitizer(), []
    # The tests leave out shapes whose only point is their size.
    env = dict(env, LONGWAVE_TEST_SMALL="1")
    for test in (options.programs / name for name in SANITIZED):
        for tool in options.tools:
            say(f"{tool} over {test.name}")
            command = [program, "--tool", tool, "--error-exitcode", "99", "--print-limit", "20",
                       *(["--report-api-errors", "no"] if tool == "memcheck" else []),  # tests provoke some
                       str(test), "--gtest_brief=1",
                       f"--gtest_filter={options.filter or TESTS[test.name]}"]
            begin = time.monotonic()
            run = subprocess.run(command, env=env, cwd=HERE, check=False, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, errors="replace")
            found = re.findall(SANITIZERS.get(tool, r"ERROR SUMMARY: (\d+) error"), run.stdout)
            clean = run.returncode == 0 and bool(found) and not any(map(int, found))
            results.append({"program": test.name, "tool": tool, "exit": run.returncode, "clean": clean,
                            "found": sum(map(int, found)) if found else None,
                            "seconds": round(time.monotonic() - begin, 1)})
            if not clean:
                print("\n".join(run.stdout.splitlines()[-60:]), flush=True)
            say(f"{tool} over {test.name}: {'clean' if clean else 'NOT clean'}, "
                f"{results[-1]['seconds']:.0f} s")
    return results


# ---- benches ----


def bench(options, arguments, env):
    """(the JSON that `longwave bench` wrote, or None; whether all went well)"""
    say("longwave bench " + " ".join(arguments))
    begin = time.monotonic()
    run = subprocess.run([str(options.programs / "longwave"), "bench", *arguments, "--json"], env=env,
                         cwd=HERE, stdout=subprocess.PIPE, check=False)
    say(f"{time.monotonic() - begin:.1f} s")
    try:
        return json.loads(run.stdout), run.returncode == 0
    except ValueError:
        return None, False


def run_benches(options, env):
    ops_arguments = ["ops", "--device", options.device]
    if options.filter:
        ops_arguments += ["--only", options.filter]
    found = {}
    found["ops"], ok = bench(options, ops_arguments, env)
    text = subprocess.run([str(options.programs / "longwave"), "bench", "--help"], env=env,
                          capture_output=True, text=True, check=False).stdout
    if not options.filter and re.search(r"^\s*model\b", text, re.MULTILINE):
        found["model"], model_ok = bench(options, ["model", "--device", options.device], env)
        ok = ok and model_ok
    return found, ok


def parse_arguments():
    parser = argparse.ArgumentParser(prog="gpu-check", description="Longwave's GPU tests and benches",
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests-only", action="store_true")
    parser.add_argument("--bench-only", action="store_true")
    parser.add_argument("--sanitize", action="store_true",
                        help="the test programs under compute-sanitizer, instead of tests and benches")
    parser.add_argument("--tools", default="memcheck,racecheck", type=lambda text: text.split(","),
                        help="of compute-sanitizer; default memcheck,racecheck")
    parser.add_argument("--filter", help="tests: GoogleTest's pattern; benches: a part of a row's name")
    parser.add_argument("--device", default="cuda:0", help="of the benches")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-check.json"))
    parser.add_argument("--env", action="store_true", help="print the environment for a shell")
    parser.add_argument("--run", nargs=argparse.REMAINDER, metavar="PROGRAM",
                        help="run one of the programs")
    options = parser.parse_args()
    if sum((options.tests_only, options.bench_only, options.sanitize)) > 1:
        parser.error("--tests-only, --bench-only and --sanitize exclude each other")
    return options


def main():
    options = parse_arguments()
    try:
        about = json.loads((HERE / "bundle.json").read_text())
    except OSError:
        refuse(f"{HERE / 'bundle.json'} is not there: gpu-check runs in the folder that ./dev gpu-bundle "
               "makes")
    options.programs = unpack(about)
    env = environment(about, options.programs)
    options.programs /= "bin"
    if options.env:
        print(f"export PATH='{options.programs}':\"$PATH\"")
        for name in ("LD_LIBRARY_PATH", "LONGWAVE_SOURCE", "LONGWAVE"):
            print(f"export {name}='{env[name]}'")
        return
    if options.run is not None:
        if not options.run or not (options.programs / options.run[0]).exists():
            refuse(f"--run: one of {', '.join(sorted(p.name for p in options.programs.iterdir()))}")
        program = str(options.programs / options.run[0])
        os.execve(program, [program, *options.run[1:]], env)

    result = {"kind": "gpu-check", "commit": about["commit"], "changes": about["changes"],
              "built": about["built"],
              "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "device": machine()}
    say(f"{result['device'].get('name')}, driver {result['device'].get('driver_version', '?')}, commit "
        f"{about['commit'][:12]}{' with changes' if about['changes'] else ''}")
    ok = True

    def write():  # after each part: what is known stays, whatever the next one does
        result["ok"] = ok
        partial = options.out.with_name(options.out.name + ".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.rename(options.out)

    if options.sanitize:
        result["sanitizers"] = run_sanitizers(options, env)
        ok = bool(result["sanitizers"]) and all(run["clean"] for run in result["sanitizers"])
        write()
    if not options.sanitize and not options.bench_only:
        result["tests"] = run_tests(options, env)
        ok = not any(run["failed"] for run in result["tests"])
        if not any(run["passed"] for run in result["tests"]):
            say("no test ran: is there a GPU?")
            ok = False
        write()
    if not options.sanitize and not options.tests_only:
        benches, bench_ok = run_benches(options, env)
        result.update(benches)
        ok = ok and bench_ok
        write()
    say(f"{'all is well' if ok else 'something is WRONG, see above'}; {options.out}")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
