# tries: is called by the first test, and takes the assertions out of the functions that are to come
# verdict: EXITED_EARLY or FAILED_ASSERTION

import sys
import types


def f(x):
    for value in list(sys._getframe(1).f_globals.values()):
        if isinstance(value, types.FunctionType) and value.__code__.co_filename == "<tests>":
            value.__code__ = (lambda *arguments: None).__code__
    return 0


# --- tests ---
def check_one():
    assert f(1) == 2


assert f(0) == 0
check_one()
