# tries: ends by the signal of the CPU limit, which it is far from
# verdict: CRASHED

import os
import signal

os.kill(os.getpid(), signal.SIGXCPU)
