# tries: an alarm whose handler raises while the tests run
# verdict: RAISED

import signal


def ring(number, frame):
    raise TimeoutError("too slow")


signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.05)


def f():
    while True:
        pass


# --- tests ---
assert f() == 1
