# tries: writes more than is kept
# verdict: PASSED

print("x" * 1_000_000)
