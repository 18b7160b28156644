# tries: waits for the timers and dispositions of the program that ran before it
# verdict: PASSED
# after: neighbours/leaves_timers

import signal
import time

handled = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
time.sleep(0.5)
# --- tests ---
assert handled == [signal.SIGINT]
assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
