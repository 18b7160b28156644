# tries: replaces unittest.main by a function that does nothing but put the real one back
# verdict: FAILED_ASSERTION

import unittest

real = unittest.main


def main(**settings):
    unittest.main = real


def f(x):
    unittest.main = main
    return 0


# --- tests ---
import unittest

assert f(0) == 0


class TestF(unittest.TestCase):
    def test_one(self):
        self.assertEqual(f(1), 2)


unittest.main(exit=False)
