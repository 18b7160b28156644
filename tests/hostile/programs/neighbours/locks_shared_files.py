# tries: locks files that every program has
# verdict: PASSED

import fcntl
import os
import time

files = [open(path, "rb") for path in ("/etc/passwd", "/usr/bin/env", os.__file__)]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
time.sleep(0.8)
