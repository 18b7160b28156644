# tries: a crash in a child, which is no crash of the program
# verdict: PASSED

import os
import signal

child = os.fork()
if child == 0:
    os.abort()
status = os.waitpid(child, 0)[1]
# --- tests ---
assert os.WTERMSIG(status) == signal.SIGABRT
