# tries: leaves daemons that watch for the next program
# verdict: PASSED

import os
import signal

for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if os.fork() == 0:
            while True:
                pass
        os._exit(0)
