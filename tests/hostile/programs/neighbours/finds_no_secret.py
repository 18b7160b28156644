# tries: looks for files, processes and arguments of a program that runs meanwhile
# verdict: PASSED
# beside: neighbours/holds_a_secret

import glob
import os

found = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
for pattern in ("/box/**", "/tmp/**", "/dev/shm/**", "/proc/*/cwd/**", "/proc/*/root/box/**"):
    found += [path for path in glob.glob(pattern, recursive=True) if "hostile" in path]
for path in glob.glob("/proc/[0-9]*/cmdline"):
    with open(path, "rb") as file:
        found += [path] * (b"hostile" in file.read())
# --- tests ---
assert found == []
