# tries: waits for a child that has stopped itself
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import os
import signal

child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
os.waitpid(child, 0)
