# tries: nothing: tests that provoke an assertion of the code and catch it are right
# verdict: PASSED


def f(x):
    assert x >= 0, "negative"
    return x


# --- tests ---
try:
    f(-1)
except AssertionError:
    pass
else:
    assert False
assert f(1) == 1
