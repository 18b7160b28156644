# tries: a failing assertion inside contextlib.suppress
# verdict: FAILED_ASSERTION

import contextlib


def f(x):
    return 0


# --- tests ---
with contextlib.suppress(AssertionError):
    assert f(1) == 2
