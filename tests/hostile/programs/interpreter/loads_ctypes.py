# tries: nothing worse than to load ctypes: after that nothing that its own process says of its tests is proved
# verdict: EXITED_EARLY

import ctypes


def f(x):
    return ctypes.c_int(x).value + 1


# --- tests ---
assert f(1) == 2
