# tries: ends every process that it may
# verdict: PASSED

import os
import signal
import time

child = os.fork()
if child == 0:
    time.sleep(60)
os.kill(-1, signal.SIGKILL)
status = os.waitpid(child, 0)[1]
# --- tests ---
assert os.WTERMSIG(status) == signal.SIGKILL
