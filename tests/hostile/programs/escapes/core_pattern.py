# tries: has a program of its own run when it crashes, with a core file beside
# verdict: PASSED

import os
import resource

status = None
try:
    with open("/proc/sys/kernel/core_pattern", "w") as file:
        file.write("|/box/work/hostile")
    pattern = True
except OSError:
    pattern = False
child = os.fork()
if child == 0:
    os.abort()
os.waitpid(child, 0)
# --- tests ---
assert not pattern
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert os.listdir(".") == []
