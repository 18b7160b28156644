# tries: hard links to files that are not its own
# verdict: PASSED

import os

made = []
for path in ("/etc/passwd", "/usr/bin/env", "/proc/self/status", "/dev/null"):
    try:
        os.link(path, "hostile-link")
        made.append(path)
    except OSError:
        pass
# --- tests ---
assert made == []
