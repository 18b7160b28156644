# tries: floods when its tests have passed
# verdict: OUTPUT_LIMIT
# limits: output_kill_bytes=1048576

import atexit


def flood():
    while True:
        print("x" * 65536)


atexit.register(flood)
