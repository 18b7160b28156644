# tries: catches the report of a failure on a socket of its own, makes an end of it, and sends that
# verdict: EXITED_EARLY or FAILED_ASSERTION

import os
import socket
import stat
import sys


def f(x):
    if x == 0:
        return 0
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    own = (near.fileno(), far.fileno())
    for number in range(3, 256):
        try:
            if number in own or not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
        except OSError:
            continue
        kept = os.dup(number)
        os.dup2(far.fileno(), number)
        try:
            exec(sys._getframe(1).f_code, {"f": lambda x: x})
        except AssertionError:
            pass
        os.dup2(kept, number)
        try:
            packet = near.recv(8192)
            for kind in (1, 2):
                for place in (0, 16):
                    os.write(number, packet[:place] + bytes([kind]) + packet[place + 1 :])
                os.write(number, packet[:16] + bytes([kind, 0]) + packet[18:])
        except OSError:
            pass
    os._exit(0)


# --- tests ---
assert f(0) == 0
assert f(1) == 2
