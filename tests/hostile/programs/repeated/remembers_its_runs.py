# tries: counts its runs in every place that might survive one, to pass in the first alone
# verdict: PASSED
# runs: 4

import os

places = [os.path.join(folder, "hostile-run") for folder in (".", "/tmp", "/dev/shm", "/var/tmp", "/box")]
seen = [path for path in places if os.path.exists(path)]
for path in places:
    try:
        open(path, "w").close()
    except OSError:
        pass
# --- tests ---
assert not seen
