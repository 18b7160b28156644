# tries: tests whose last statement is an exit: what a passing script often ends with
# verdict: EXITED_EARLY

import sys

# --- tests ---
assert 1 + 1 == 2
sys.exit(0)
