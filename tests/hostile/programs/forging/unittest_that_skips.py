# tries: has unittest skip every test; one plain assertion remains
# verdict: FAILED_ASSERTION or EXITED_EARLY

import unittest


def skip(self):
    self.skipTest("not today")


unittest.TestCase.setUp = skip


def f(x):
    return 0


# --- tests ---
import unittest

assert f(0) == 0


class TestF(unittest.TestCase):
    def test_one(self):
        self.assertEqual(f(1), 2)


unittest.main()
