# tries: watches which files a program that runs meanwhile opens
# verdict: COMPLETED
# tests: none
# beside: neighbours/opens_shared_files

import ctypes
import os
import time

libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init1(os.O_NONBLOCK)
folder = os.path.dirname(os.__file__)
for path in (folder, os.path.join(folder, "wave.py")):
    libc.inotify_add_watch(watch, os.fsencode(path), 0xFFF)
time.sleep(0.2)
try:
    seen = os.read(watch, 4096)
except OSError:
    seen = b""
assert seen == b""
