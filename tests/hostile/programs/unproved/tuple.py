# tries: an assertion of a tuple, which is always true: it was executed, and it did not fail
# verdict: PASSED


def f(x):
    return 0


# --- tests ---
assert (f(1) == 2, "f(1) is not 2")
