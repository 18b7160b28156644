# tries: has unittest stop before the test that would fail, by the result that it finds in a frame
# verdict: FAILED_ASSERTION

import sys


def f(x):
    frame = sys._getframe(1)
    while frame:
        result = frame.f_locals.get("result")
        if hasattr(result, "stop"):
            result.stop()
        frame = frame.f_back
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_a(self):
        self.assertEqual(f(0), 0)

    def test_b(self):
        self.assertEqual(f(1), 2)


unittest.main()
