# tries: failing assertions inside handlers of every kind
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
assert f(0) == 0
try:
    assert f(1) == 2
except:
    pass
try:
    assert f(2) == 3
except BaseException:
    pass
