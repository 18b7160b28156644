# tries: unittest's assertions in a comprehension, which are no statements of their own
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(f(0), 0)

    def test_many(self):
        [self.assertEqual(f(x), x + 1) for x in range(3)]


unittest.main()
