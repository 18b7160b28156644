# tries: uses descriptors that the runner left open: another process's pipes, folders above a chroot
# verdict: PASSED

import os
import stat

folders, others = [], []
for number in range(1024):
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        continue
    if stat.S_ISDIR(mode):
        folders.append(number)
    elif number > 2:
        others.append(number)
# --- tests ---
assert folders == []
assert len(others) <= 1, others
