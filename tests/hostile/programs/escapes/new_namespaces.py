# tries: makes namespaces of its own, in which it would have every capability
# verdict: COMPLETED
# tests: none

import ctypes
import os

KINDS = (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x10000000 | 0x00020000)
libc = ctypes.CDLL(None, use_errno=True)
results = [libc.unshare(kind) for kind in KINDS]
results += [libc.syscall(56, kind | 17, 0, 0, 0, 0) for kind in KINDS]
results.append(libc.syscall(435, bytes(88), 88))
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: its files in /proc belong to it again
for name in os.listdir("/proc/self/ns"):
    try:
        results.append(libc.setns(os.open(f"/proc/self/ns/{name}", os.O_RDONLY), 0))
    except OSError:
        pass
assert set(results) == {-1}, results
