# tries: puts another descriptor in the place of the channel while the tests fail, and puts it back for their end
# verdict: FAILED_ASSERTION or EXITED_EARLY

import os
import stat
import sys

kept = {}
for number in range(3, 256):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            kept[number] = 0
    except OSError:
        pass
for number in kept:
    kept[number] = os.dup(number)
    os.dup2(os.open("/dev/null", os.O_WRONLY), number)


class Errors:
    said = ""

    def write(self, text):
        self.said += text
        if "FAILED (" in self.said:
            for number, copy in kept.items():
                os.dup2(copy, number)

    def flush(self):
        pass


sys.stderr = Errors()


def f(x):
    return 0


# --- tests ---
import unittest


class TestF(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(f(0), 0)

    def test_one(self):
        self.assertEqual(f(1), 2)


if __name__ == "__main__":
    unittest.main()
