# tries: a test method that raises AssertionError itself
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(f(0), 0)

    def test_one(self):
        if f(1) != 2:
            raise AssertionError("f(1) is not 2")


unittest.main()
