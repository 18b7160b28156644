# tries: nothing; an error of its own
# verdict: RAISED


def mean(values):
    return sum(values) / len(values)


# --- tests ---
assert mean([1, 3]) == 2
assert mean([]) == 0
