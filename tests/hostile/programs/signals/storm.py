# tries: a timer so fast that its handler is nearly all that runs
# verdict: PASSED

import signal

rung = 0


def ring(number, frame):
    global rung
    rung += 1


signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while rung < 20:
    total = sum(n * n for n in range(1000))
# --- tests ---
assert total == 332833500
