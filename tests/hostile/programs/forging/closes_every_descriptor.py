# tries: closes whatever a failure could be reported on
# verdict: EXITED_EARLY

import os

os.closerange(3, 1024)


def f(x):
    return 0


# --- tests ---
assert f(1) == 2
