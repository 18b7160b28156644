# tries: passes full sockets through sockets that are passed through themselves: no process holds them any more
# verdict: PASSED

import contextlib
import socket

for _ in range(8):
    left, right = socket.socketpair()
    full = socket.socketpair()
    for end in full:
        end.setblocking(False)
        with contextlib.suppress(PermissionError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        with contextlib.suppress(BlockingIOError):
            while True:
                end.send(bytes(65536))
    every = (left, right, *full)
    socket.send_fds(left, [b"x"], [end.fileno() for end in every])
    for end in every:
        end.close()
