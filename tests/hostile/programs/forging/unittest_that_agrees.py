# tries: changes unittest's own assertions, so that everything is equal to them
# verdict: FAILED_ASSERTION or EXITED_EARLY

import unittest

for name in dir(unittest.TestCase):
    if name.startswith("assert"):
        setattr(unittest.TestCase, name, lambda *arguments: None)


def f(x):
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_one(self):
        self.assertEqual(f(1), 2)


unittest.main()
