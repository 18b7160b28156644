# tries: has a child stop the first process of its box, which everything else hangs on
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import os
import signal
import time

if os.fork() == 0:
    os.kill(1, signal.SIGSTOP)
    time.sleep(60)
while True:
    time.sleep(1)
