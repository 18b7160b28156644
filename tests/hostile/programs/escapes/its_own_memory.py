# tries: writes over its own code through /proc, past the protection of pages
# verdict: COMPLETED
# tests: none

import os

written = []
for path in ("/proc/self/mem", "/proc/1/mem", "/dev/mem", "/dev/kmem", "/proc/kcore"):
    try:
        number = os.open(path, os.O_RDWR)
        os.pwrite(number, b"\xcc", id(os.getpid))
        written.append(path)
    except OSError:
        pass
assert written == []
