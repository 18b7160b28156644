# tries: sets the system's clock back
# verdict: PASSED

import time

refused = []
for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC):
    try:
        time.clock_settime(clock, 1.0)
    except OSError:
        refused.append(clock)
# --- tests ---
assert len(refused) == 2
assert time.time() > 1_000_000_000
