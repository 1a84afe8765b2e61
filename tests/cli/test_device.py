"""The program on the emulated GPU: `longwave run --device` and `bench model` from end to end."""
import json
import os
import unittest

from support import DNA, TEXT, CliTest, read_npy

EMULATED = os.environ.get("LONGWAVE_EMULATED")


@unittest.skipUnless(EMULATED, "no emulator in this build")
class Device(CliTest):
    def run_emulated(self, *arguments):
        import subprocess
        done = subprocess.run([EMULATED, *map(str, arguments)], capture_output=True, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def test_score_is_that_of_the_cpu(self):
        source = self.path("a.txt", "ACGTTGCA" * 12)
        code, out, err = self.run_emulated("run", DNA, source, "--device", "cuda:0", "--dtype",
                                           "float32", "--chunk", 40, "--json", "--out",
                                           self.path("gpu.npy"))
        self.assertEqual(code, 0, err)
        report = json.loads(out)
        self.assertEqual((report["device"], report["device_name"], report["dtype"]),
                         ("cuda:0", "emulated", "float32"))
        self.run_json(DNA, source, "--device", "cpu", "--out", self.path("cpu.npy"))
        gpu, cpu = read_npy(self.path("gpu.npy"))[0], read_npy(self.path("cpu.npy"))[0]
        self.assertEqual(len(gpu), len(cpu))
        for a, b in zip(gpu[1:], cpu[1:]):
            self.assertAlmostEqual(a, b, delta=1e-4)

    def test_auto_is_the_gpu_in_bfloat16(self):
        code, out, err = self.run_emulated("run", TEXT, "--task", "generate", "--prompt", "In the ",
                                           "--max-new-tokens", 4, "--json")
        self.assertEqual(code, 0, err)
        report = json.loads(out)
        self.assertEqual((report["device"], report["dtype"]), ("cuda:0", "bfloat16"))
        self.assertEqual(report["sequences"][0]["generated_tokens"], 4)

    def test_a_device_that_is_not_there(self):
        code, out, err = self.run_emulated("run", DNA, self.path("a.txt", "ACGT"), "--device",
                                           "cuda:3")
        self.assertEqual((code, out), (2, ""))
        self.assertEqual(err.count("\n"), 1)
        self.assertIn("cuda:3", err)


if __name__ == "__main__":
    unittest.main()
