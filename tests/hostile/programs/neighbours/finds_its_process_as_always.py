# tries: looks for what the program before it has changed
# verdict: PASSED
# after: neighbours/changes_its_process

import os
import resource

# --- tests ---
assert os.umask(0o22) == 0o22
assert os.nice(0) == 0
assert "HOSTILE" not in os.environ
assert os.getcwd() == "/box/work"
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 20
assert resource.getrlimit(resource.RLIMIT_STACK)[0] != 65536
with open("/proc/self/comm") as file:
    assert "hostile" not in file.read()
