# tries: catches whatever would end it
# verdict: TIMED_OUT
# limits: wall_seconds=0.5

while True:
    try:
        while True:
            pass
    except BaseException:
        pass
