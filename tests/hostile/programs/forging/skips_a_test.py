# tries: has unittest skip the test that would fail, by the exception that says so
# verdict: FAILED_ASSERTION

import unittest


def f(x):
    if x == 1:
        raise unittest.SkipTest("not today")
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(f(0), 0)

    def test_one(self):
        self.assertEqual(f(1), 2)


unittest.main()
