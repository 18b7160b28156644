# tries: a chain of processes, each of which lives just long enough to start the next
# verdict: TIMED_OUT or PROCESS_LIMIT
# limits: wall_seconds=0.5

import os
import time

if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork():
            os._exit(0)
time.sleep(60)
