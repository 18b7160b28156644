# tries: nothing; tests in the style of unittest
# verdict: PASSED


def reverse(text):
    return text[::-1]


# --- tests ---
import unittest


class TestReverse(unittest.TestCase):
    def test_word(self):
        self.assertEqual(reverse("abc"), "cba")

    def test_type(self):
        with self.assertRaises(TypeError):
            reverse(1)


if __name__ == "__main__":
    unittest.main()
