# tries: has the collector run whenever something is made, and look at everything
# verdict: PASSED

import gc

gc.unfreeze()
gc.set_threshold(1, 1, 1)
cycles = []
for _ in range(50):
    cycle = []
    cycle.append(cycle)
# --- tests ---
assert gc.isenabled()
