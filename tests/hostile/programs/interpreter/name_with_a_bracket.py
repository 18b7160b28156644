# tries: a process name that breaks careless readers of /proc/PID/stat, to use more memory than is counted
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=100663296

import ctypes
import os
import time

for _ in range(5):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"x) Z 1 1\n(")
        block = bytearray(b"1") * (40 << 20)
        time.sleep(9)
time.sleep(9)
