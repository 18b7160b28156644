# tries: sends so many packets on every socket that the one about the failure is not read
# verdict: EXITED_EARLY or FAILED_ASSERTION

import os
import socket
import stat

for number in range(3, 256):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            for size in (0, 1, 30, 60, 8192, 60000) * 40:
                socket.socket(fileno=os.dup(number)).send(b"x" * size, socket.MSG_DONTWAIT)
    except OSError:
        pass


def f(x):
    return 0


# --- tests ---
assert f(0) == 0
try:
    assert f(1) == 2
except AssertionError:
    pass
