# tries: has unittest run the one test that passes, by the arguments of the command line
# verdict: FAILED_ASSERTION

import sys

sys.argv[1:] = ["-k", "zero"]


def f(x):
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(f(0), 0)

    def test_one(self):
        self.assertEqual(f(1), 2)


unittest.main()
