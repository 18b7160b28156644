# tries: unittest.main() where there is nothing to run
# verdict: NO_TESTS

# --- tests ---
import unittest


class TestNothing(unittest.TestCase):
    def check_it(self):
        self.assertEqual(1, 2)


unittest.main()
