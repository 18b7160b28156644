# tries: nothing; counts each assertion of a loop
# verdict: PASSED


def add(a, b):
    return a + b


# --- tests ---
for n in range(5):
    assert add(n, 1) == n + 1
