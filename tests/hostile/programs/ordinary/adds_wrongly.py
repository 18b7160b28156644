# tries: nothing; a wrong answer
# verdict: FAILED_ASSERTION


def add(a, b):
    return a - b


# --- tests ---
assert add(0, 0) == 0
assert add(1, 1) == 2
