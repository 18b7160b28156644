# tries: a test method that raises, which unittest reports and does not raise
# verdict: RAISED


def f(x):
    return [][x]


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_nothing(self):
        self.assertIsNone(None)

    def test_one(self):
        self.assertEqual(f(1), 2)


if __name__ == "__main__":
    unittest.main()
