# tries: stops instead of running or ending
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import os
import signal

os.kill(os.getpid(), signal.SIGSTOP)
