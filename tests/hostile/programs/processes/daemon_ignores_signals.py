# tries: a daemon that ignores every signal outlives the time limit
# verdict: TIMED_OUT
# limits: wall_seconds=0.5

import os
import signal
import time

for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
os.wait()
time.sleep(300)
