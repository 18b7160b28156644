# tries: passes, fails or raises by chance
# verdict: FLAKY
# runs: 10

import random

side = random.randrange(3)
if side == 2:
    raise ValueError(side)
# --- tests ---
assert side == 0
