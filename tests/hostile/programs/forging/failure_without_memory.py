# tries: lets allocations fail while an assertion of the tests reports its failure
# verdict: FAILED_ASSERTION or EXITED_EARLY

import gc
import sys

try:
    import _testcapi
except ImportError:
    _testcapi = None


def f(x):
    if x == 0 and _testcapi:
        tests = sys._getframe(1).f_code
        for start in range(1, 80):
            _testcapi.set_nomemory(start, start + 1)
            try:
                exec(tests, {"f": lambda x: 0})
            except BaseException:
                pass
            _testcapi.remove_mem_hooks()
    return 0


gc.disable()
# --- tests ---
assert f(0) == 0
try:
    assert f(1) == 2
except Exception:
    pass
