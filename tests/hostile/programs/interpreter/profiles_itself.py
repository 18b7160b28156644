# tries: has a profiler look at it, as programs that measure themselves do
# verdict: FAILED_ASSERTION

import cProfile

profile = cProfile.Profile()
profile.enable()


def f(x):
    return 0


# --- tests ---
assert f(1) == 2
