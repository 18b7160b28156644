# tries: ignores SIGXCPU and goes on
# verdict: TIMED_OUT
# limits: cpu_seconds=1

import signal

signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True:
    pass
