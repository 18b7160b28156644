# tries: one multiplication of huge integers, in C, without a check for signals
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

x = 7 ** (7**10)
