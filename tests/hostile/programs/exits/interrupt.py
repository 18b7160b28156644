# tries: ends as if someone had pressed Ctrl-C
# verdict: RAISED

raise KeyboardInterrupt
