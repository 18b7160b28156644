# tries: forks without end and ignores that it is refused
# verdict: TIMED_OUT or PROCESS_LIMIT
# limits: wall_seconds=0.7

import os

while True:
    try:
        os.fork()
    except OSError:
        pass
