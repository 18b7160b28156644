# tries: a failing assertion whose exception a `return` in `finally` drops
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
def check():
    try:
        assert f(1) == 2
    finally:
        return True


check()
