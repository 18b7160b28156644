# tries: writes into every folder that is not its own
# verdict: PASSED

import os

written = []
for top in ("/", "/dev", "/etc", "/opt", "/proc", "/run", "/sys", "/usr", "/var"):
    for folder, folders, _ in os.walk(top):
        if top == "/" or folder.count("/") > 2:
            folders.clear()
        if folder == "/dev/shm":
            continue
        try:
            with open(os.path.join(folder, "hostile-outside"), "w"):
                written.append(folder)
        except OSError:
            pass
# --- tests ---
assert written == []
