# tries: passes or fails by the time of its run
# verdict: FLAKY
# runs: 10

import time

# --- tests ---
assert time.time_ns() // 1000 % 2
