# tries: unittest.main() told not to end the program
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(f(0), 0)

    def test_one(self):
        with self.subTest("one"):
            self.assertEqual(f(1), 2)


unittest.main(exit=False)
