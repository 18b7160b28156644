# tries: looks for what lives on without a process
# verdict: COMPLETED
# tests: none
# after: neighbours/leaves_interprocess_objects

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
found = [libc.semget(4711, 1, 0), libc.msgget(4711, 0), libc.shmget(4711, ctypes.c_size_t(1), 0)]
found.append(libc.mq_open(b"/hostile", 0))
assert found == [-1, -1, -1, -1]
assert os.listdir("/dev/shm") == []
