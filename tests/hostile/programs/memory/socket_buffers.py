# tries: keeps more in the buffers of sockets, which belong to no process, than its memory may hold
# verdict: PASSED or OUT_OF_MEMORY
# limits: memory_bytes=134217728

import contextlib
import socket
import time

held, size = [], 0
for _ in range(30):
    for end in socket.socketpair():
        end.setblocking(False)
        with contextlib.suppress(PermissionError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        with contextlib.suppress(BlockingIOError):
            while True:
                size += end.send(bytes(65536))
        held.append(end)
time.sleep(0.5)
# --- tests ---
assert size < 128 << 20
