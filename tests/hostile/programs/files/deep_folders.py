# tries: folders in folders, deeper than any path is long
# verdict: PASSED

import os

for _ in range(2000):
    os.mkdir("folder")
    os.chdir("folder")
with open("bottom", "w") as file:
    file.write("here")
# --- tests ---
assert os.listdir(".") == ["bottom"]
