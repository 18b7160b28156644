# tries: turns every warning into an error
# verdict: PASSED

import warnings

warnings.simplefilter("error")
# --- tests ---
assert 1 is 1
assert (1, "always true")
