# tries: an assertion of the code that fails under unittest, outside of unittest's own
# verdict: FAILED_ASSERTION


def f(x):
    assert x == 0
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(f(0), 0)

    def test_one(self):
        found = f(1)
        self.assertEqual(found, 2)


unittest.main()
