# tries: a System V segment, which no process limit counts
# verdict: COMPLETED
# tests: none

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
segment = libc.shmget(0, ctypes.c_size_t(64 << 20), 0o1600)
assert segment == -1
