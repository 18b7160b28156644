# tries: loads ctypes, and fails a test: that is believed
# verdict: FAILED_ASSERTION

import ctypes


def f(x):
    return ctypes.c_int(x).value


# --- tests ---
assert f(1) == 2
