# tries: a sum that takes hours, in one call
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

total = sum(range(10**13))
