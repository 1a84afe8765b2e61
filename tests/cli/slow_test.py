"""What takes longer: memory over long inputs, progress while it runs."""

import os
import pty
import re
import select
import subprocess
import sys
import time
import unittest

from support import DNA, LONG, PROGRAM, CliTest, read_npy


class Slow(CliTest):
    def peak_memory(self, *arguments):
        """Bytes of resident memory at most, of one run."""
        # A process's peak counts from before its exec: it must be started by a small one.
        starter = ("import resource, subprocess, sys\n"
                   "subprocess.run(sys.argv[1:], check=True)\n"
                   "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        result = subprocess.run([sys.executable, "-S", "-c", starter, PROGRAM, "run",
                                 *map(str, arguments)], stdout=subprocess.PIPE, check=True)
        return int(result.stdout) * 1024

    def test_memory_does_not_grow_with_the_sequence(self):
        peaks = []
        for length in (200_000, 3_200_000):
            ids = self.npy(f"{length}.npy", [i * i % 63 for i in range(length)])
            out = self.path("out.npy")
            peaks.append(self.peak_memory(LONG, ids, "--out", out, "--quiet"))
            self.assertEqual(read_npy(out)[1], (length,))
        self.assertLess(peaks[1], 1.1 * peaks[0])

    def test_plain_lines_are_seldom(self):
        text = self.path("a.txt", "ACGT" * 75_000)
        start = time.monotonic()
        result = self.run_ok(DNA, text, "--chunk", 512)
        lines = result.stderr.decode().splitlines()
        seconds = time.monotonic() - start
        self.assertLessEqual(len(lines), seconds / 2)
        self.assertGreaterEqual(len(lines), (seconds - 1) // 3)
        for line in lines:
            self.assertRegex(line, r"\A[\d,]+ tokens( \(\d+ %\))?, [\d,]+ tokens/s(, .* left)?\Z")

    def test_bar_on_a_terminal(self):
        text = self.path("a.txt", "ACGT" * 50_000)
        try:
            main, side = pty.openpty()
        except OSError as error:  # a container without /dev/pts
            self.skipTest(str(error))
        process = subprocess.Popen([PROGRAM, "run", str(DNA), str(text), "--chunk", "512"],
                                   stderr=side, stdout=subprocess.DEVNULL)
        os.close(side)
        shown = b""
        while select.select([main], [], [], 60)[0]:
            try:
                data = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            shown += data
        os.close(main)
        self.assertEqual(process.wait(), 0)
        self.assertTrue(re.search(rb"\r\[#+\.+\] +\d+ %  [\d,]+ tokens  [\d,]+ tokens/s  .* left",
                                  shown), shown[:200])
        self.assertTrue(shown.endswith(b"\r\x1b[K"))  # and is gone at the end
        self.assertNotIn(b"\n", shown)


if __name__ == "__main__":
    unittest.main()
