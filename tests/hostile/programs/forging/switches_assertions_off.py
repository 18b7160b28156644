# tries: has the tests compiled or run as `python -O` would
# verdict: FAILED_ASSERTION

import builtins
import os
import sys

try:
    setattr(builtins, "__debug__", False)
except Exception:
    pass
os.environ["PYTHONOPTIMIZE"] = "2"
sys.flags = type("flags", (), {"optimize": 2})


def f(x):
    return 0


# --- tests ---
assert f(1) == 2
