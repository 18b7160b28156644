# tries: reaches other file systems through the roots and folders of processes
# verdict: PASSED

import os

seen = []
for base in ("/proc/1", "/proc/self", "/proc/thread-self", "/proc/2"):
    for link in ("root", "cwd"):
        for secret in ("/root", "/home", "/etc/shadow", "/../../../../root", "/boot", "/var/log"):
            if os.path.lexists(f"{base}/{link}{secret}"):
                seen.append(f"{base}/{link}{secret}")
# --- tests ---
assert seen == []
