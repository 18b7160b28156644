# tries: looks for processes of the program that ran before it
# verdict: PASSED
# after: neighbours/leaves_processes

import os

# --- tests ---
assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1"]
assert os.getpid() == 1
