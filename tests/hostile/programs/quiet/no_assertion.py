# tries: tests that print instead of asserting
# verdict: NO_TESTS


def f(x):
    return 0


# --- tests ---
print(f(1) == 2)
