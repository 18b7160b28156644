# tries: looks for files of the program that ran before it
# verdict: PASSED
# after: neighbours/leaves_files

import os

found = []
for top in ("/box", "/tmp", "/dev", "/opt", "/var", "/run", "/proc/1/cwd/"):
    for folder, _, files in os.walk(top):
        found += [os.path.join(folder, name) for name in files if "hostile" in name]
# --- tests ---
assert found == []
assert os.listdir(".") == os.listdir("/tmp") == os.listdir("/dev/shm") == []
