# tries: tests that end in the middle
# verdict: EXITED_EARLY

import sys


def f(x):
    return x + 1


# --- tests ---
assert f(1) == 2
sys.exit(0)
assert f(2) == 4
