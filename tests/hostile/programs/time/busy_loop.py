# tries: never ends
# verdict: TIMED_OUT
# limits: wall_seconds=0.5

while True:
    pass
