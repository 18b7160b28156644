# tries: locks files that every program has, while another program holds such locks
# verdict: PASSED
# open: slots of one box share the files of its root, and so locks on them; with one slot there is no neighbour
# beside: neighbours/locks_shared_files

import fcntl
import os

refused = []
for path in ("/etc/passwd", "/usr/bin/env", os.__file__):
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(path)
# --- tests ---
assert refused == []
