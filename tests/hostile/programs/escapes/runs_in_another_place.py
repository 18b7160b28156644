# tries: leaves its folder for one that is gone, and has the tests run there
# verdict: PASSED

import os

os.mkdir("/tmp/hostile-gone")
os.chdir("/tmp/hostile-gone")
os.rmdir("/tmp/hostile-gone")
# --- tests ---
try:
    os.getcwd()
except FileNotFoundError:
    pass
assert not os.path.exists("/tmp/hostile-gone")
