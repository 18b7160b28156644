# tries: ignores and blocks every signal, and never ends
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import signal

for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
while True:
    pass
