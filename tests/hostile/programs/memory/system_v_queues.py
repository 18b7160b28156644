# tries: semaphores and message queues of System V, which no process limit counts
# verdict: COMPLETED
# tests: none

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
assert libc.semget(0, 32000, 0o1600) == -1
assert libc.msgget(0, 0o1600) == -1
