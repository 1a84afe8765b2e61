"""The chart's scaling policy in closed loop, small: `tests/bench/autoscale.py` has what is real in it and what is a
model. Figures are the bench's; here nothing is decided by a time."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "bench"))
from autoscale import TOKENS, Hpa, Policy, run  # noqa: E402

BEHAVIOR = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 300, "periodSeconds": 30},
                             {"type": "Pods", "value": 4, "periodSeconds": 30}]},
    "scaleDown": {"stabilizationWindowSeconds": 180, "selectPolicy": "Max",
                  "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}}


class HpaTest(unittest.TestCase):
    def test_up_at_once_but_by_the_policies(self):
        hpa = Hpa(1, 32, 120, BEHAVIOR)
        self.assertEqual(hpa.decide(1, 1, 12000, 0), 5)  # four pods count more than threefold one
        self.assertEqual(hpa.decide(5, 5, 12000, 15), 5)
        self.assertEqual(hpa.decide(5, 5, 12000, 30), 20)
        self.assertEqual(hpa.decide(20, 20, 12000, 60), 32)

    def test_down_after_the_window_by_half_a_minute(self):
        hpa = Hpa(1, 32, 120, BEHAVIOR)
        self.assertEqual(hpa.decide(32, 32, 120, 0), 32)
        self.assertEqual(hpa.decide(32, 32, 0, 15), 32)
        self.assertEqual(hpa.decide(32, 32, 0, 179), 32)
        self.assertEqual(hpa.decide(32, 32, 0, 180), 16)
        self.assertEqual(hpa.decide(16, 16, 0, 195), 16)
        self.assertEqual(hpa.decide(16, 16, 0, 240), 8)

    def test_near_the_target_or_without_a_figure_nothing_changes(self):
        hpa = Hpa(1, 32, 120, BEHAVIOR)
        self.assertEqual(hpa.decide(7, 7, 131, 0), 7)
        self.assertEqual(hpa.decide(7, 7, None, 15), 7)
        self.assertEqual(hpa.decide(7, 7, 240, 30), 14)

    def test_keda_from_and_to_zero(self):
        policy = Policy("keda")
        self.assertEqual(policy.decide(0, 0, 0, 1000), 0)
        self.assertEqual(policy.decide(0, 0, 600, 1015), 1)
        self.assertEqual(policy.decide(1, 1, 600, 1030), 5)
        policy.hpa.recommendations.clear()
        self.assertEqual(policy.decide(1, 1, 0, 1045), 1)
        self.assertEqual(policy.decide(1, 1, 0, 1030 + policy.cooldown), 0)


class LoopTest(unittest.TestCase):
    def test_a_pool_grows_and_shrinks_and_loses_nothing(self):
        found = run("burst", 20, Policy("hpa"), jobs=16, tokens=TOKENS, trickle=16)
        self.assertGreater(found["most_pods"], 16)
        self.assertEqual(found["samples"][-1]["pods"], 1)
        self.assertEqual(len(found["removed"]), found["most_pods"] - 1)
        self.assertEqual(found["leases_lost"], 0)
        self.assertLessEqual(max(found["chunks_computed_again"]), 2 * found["most_pods"])  # in flight at a time
        print(f"\nscale-in: {len(found['removed'])} workers, "
              f"{sum(one['state'] == 'busy' for one in found['removed'])} of them busy; "
              f"{sum(found['chunks_computed_again'])} of {found['chunks']} chunks computed again", flush=True)


if __name__ == "__main__":
    unittest.main()
