# tries: ends by the signal that a limit would send
# verdict: CRASHED

import os
import signal

os.kill(os.getpid(), signal.SIGKILL)
