# tries: writes through /proc and devices, past the protection of pages, to memory that is not its own
# verdict: COMPLETED
# tests: none

import os

# Releases of gVisor from 2026 let a process write to its own memory so, as Linux does; ctypes could as well.
OWN = {"/proc/self/mem", f"/proc/{os.getpid()}/mem"}
written = []
for path in ("/proc/self/mem", "/proc/1/mem", "/dev/mem", "/dev/kmem", "/proc/kcore"):
    try:
        number = os.open(path, os.O_RDWR)
        os.pwrite(number, b"\xcc", id(os.getpid))
        written.append(path)
    except OSError:
        pass
assert set(written) <= OWN

# A helper is not the process that its tests are judged in.
helper = os.fork()
if helper == 0:
    try:
        os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR)
    except OSError:
        os._exit(0)
    os._exit(1)
assert os.waitpid(helper, 0)[1] == 0
