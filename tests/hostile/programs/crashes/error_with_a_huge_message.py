# tries: raises an exception whose message is three megabytes long
# verdict: RAISED

raise ValueError("x\0\n" * (1 << 20))
