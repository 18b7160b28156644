# tries: an alarm that nobody handles
# verdict: CRASHED

import signal

signal.setitimer(signal.ITIMER_REAL, 0.05)
while True:
    pass
