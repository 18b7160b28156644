# tries: an assertion of a mock, which unittest catches and nothing else sees
# verdict: FAILED_ASSERTION


def f(call):
    return 0


# --- tests ---
import unittest
from unittest import mock


class TestF(unittest.TestCase):
    def test_call(self):
        call = mock.Mock()
        self.assertEqual(f(call), 0)
        call.assert_called_once_with(1)


unittest.main()
