# tries: changes what a process hands down: limits, priority, mask, group, name, working folder
# verdict: COMPLETED
# tests: none

import ctypes
import os
import resource

os.umask(0)
os.nice(19)
os.environ["HOSTILE"] = "1"
os.chdir("/")
os.sched_setaffinity(0, {0})
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
resource.setrlimit(resource.RLIMIT_STACK, (65536, 65536))
libc = ctypes.CDLL(None)
libc.prctl(15, b"hostile) Z 0")
libc.prctl(1, 9)
libc.personality(0x0040000)
