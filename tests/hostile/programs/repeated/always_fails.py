# tries: fails in each of its runs alike, which is no flakiness
# verdict: FAILED_ASSERTION
# runs: 3

# --- tests ---
assert 1 + 1 == 3
