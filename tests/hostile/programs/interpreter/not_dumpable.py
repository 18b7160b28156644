# tries: hides its own files in /proc from whoever watches it
# verdict: TIMED_OUT
# limits: cpu_seconds=1

import ctypes
import os

ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
os.fork()
while True:
    pass
