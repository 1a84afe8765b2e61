"""Outputs that cannot be written, and runs that are stopped: nothing looks whole that is not."""

import os
import resource
import signal
import stat
import subprocess
import time
import unittest

from support import DNA, IDS, PROGRAM, CliTest


class BadOutput(CliTest):
    def setUp(self):
        super().setUp()
        self.ids = self.npy("ids.npy", [i % 104 for i in range(3000)])

    def refused(self, out, *said, options=(), **more):
        return self.assert_refused([IDS, self.ids, "--out", out, *options], *said, **more)

    def test_folder_that_is_not_there(self):
        self.refused(self.path("none") / "out.npy", "none/out.npy")

    def test_folder_that_is_a_file(self):
        self.refused(self.path("file", "x") / "out.npy", "file/out.npy")

    def test_path_that_is_a_folder(self):
        self.path("folder").mkdir()
        self.refused(self.path("folder"), "folder")

    def test_name_too_long(self):
        self.refused(self.path("x" * 255 + ".npy"), "xxx.npy")

    def test_output_that_is_an_input(self):
        before = self.ids.read_bytes()
        self.refused(self.ids, "would overwrite", "ids.npy")
        self.assertEqual(self.ids.read_bytes(), before)

    def test_array_to_a_pipe_beyond_the_buffer(self):
        pipe = self.path("pipe")
        os.mkfifo(pipe)
        reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
        try:
            done = subprocess.run([PROGRAM, "run", IDS, self.ids, "--task", "logits", "--out", pipe],
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(reader.communicate(timeout=10)[0], b"")
        finally:
            reader.kill()
            reader.wait()
        self.assertEqual(done.returncode, 2)
        self.assertIn("limited to", done.stderr)

    def test_unwritable_is_found_before_any_work(self):
        error = self.assert_refused(["no-such-model", "no-such-input", "--out", "/none/out.npy"])
        self.assertIn("/none/out.npy", error)

    @unittest.skipIf(os.geteuid() == 0, "root writes anywhere")
    def test_folder_without_permission(self):
        self.path("shut").mkdir(mode=0o555)
        self.refused(self.path("shut") / "out.npy", "shut/out.npy")

    def test_dev_full(self):
        for task in ("score", "embed", "logits", "generate"):
            with self.subTest(task=task):
                self.refused("/dev/full", "/dev/full", options=["--task", task, "--quiet"])
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/full").st_mode))

    def test_file_size_limit(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for task in ("score", "logits"):
            with self.subTest(task=task):
                self.refused(self.path("out.npy"), "out.npy", options=["--task", task],
                             preexec_fn=limit)

    @unittest.skipUnless(os.geteuid() == 0, "only root mounts")
    def test_full_disk(self):
        disk = self.path("disk")
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk],
                          stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("mount is not allowed here")
        try:
            self.refused(disk / "out.npy", "disk/out.npy", options=["--task", "logits"])
            self.assertEqual(list(disk.iterdir()), [])
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_failed_run_leaves_the_old_file(self):
        out = self.path("out.npy", "precious")
        bad = self.npy("bad.npy", [1, 2, 999])
        self.assert_refused([IDS, bad, "--out", out], 999)
        self.assertEqual(out.read_bytes(), b"precious")

    def test_standard_output_full(self):
        for options in ([], ["--json"], ["--task", "generate"]):
            with self.subTest(options=options), open("/dev/full", "wb") as full:
                self.assert_refused([IDS, self.ids, *options], "standard output", stdout=full)

    def test_help_to_a_full_disk(self):
        with open("/dev/full", "wb") as full:
            self.assert_refused(["--help"], "standard output", stdout=full)

    def test_standard_output_closed(self):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as closed:
            self.assert_refused([IDS, self.ids, "--task", "generate"], "standard output",
                                stdout=closed)


class Stopped(CliTest):
    def start(self, *arguments, **options):
        return subprocess.Popen([PROGRAM, "run", *map(str, arguments)], stderr=subprocess.PIPE,
                                stdout=subprocess.PIPE, **options)

    def wait_for_partial(self):
        deadline = time.monotonic() + 60
        while not any(name.endswith(".partial") for name in self.files()):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        time.sleep(0.3)  # into the run

    def stop(self, process, which, code):
        self.wait_for_partial()
        process.send_signal(which)
        out, error = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code)
        self.assertEqual(out, b"")
        self.assertRegex(error.decode().splitlines()[-1], r"\Alongwave: stopped by SIG")

    def test_in_the_middle(self):
        text = self.path("text.txt", "ACGT" * 5_000_000)
        for which, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.subTest(which=which):
                process = self.start(DNA, text, "--out", self.path("out.npy"), "--chunk", 1024)
                self.stop(process, which, code)
                # Nothing that looks whole; from the rest the same command would go on.
                left = [name for name in self.files() if name != "text.txt"]
                self.assertIn(left, ([], ["out.npy.partial", "out.npy.resume"]))
                for name in left:
                    self.path(name).unlink()

    def test_while_waiting_for_input(self):
        process = self.start(DNA, "-", "--out", self.path("out.npy"), stdin=subprocess.PIPE)
        process.stdin.write(b"ACGT" * 100)
        process.stdin.flush()
        self.stop(process, signal.SIGINT, 130)
        self.assertEqual(self.files(), [])

    def test_while_generating(self):
        process = self.start(DNA, "--task", "generate", "--prompt", "ACGT", "--max-new-tokens",
                             10**9, "--out", self.path("out.txt"), "--quiet")
        self.stop(process, signal.SIGTERM, 143)
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    unittest.main()
