# tries: has types.coroutine, which changes code objects for good reasons, take the assertions out of a test
# verdict: EXITED_EARLY or FAILED_ASSERTION

import functools
import sys
import types


class Code:
    __class__ = types.CodeType
    co_flags = 0x20

    def replace(self, **changes):
        return (lambda: None).__code__


def f(x):
    class Function:
        __class__ = types.FunctionType
        __code__ = Code()
        __setattr__ = functools.partial(setattr, sys._getframe(1).f_globals["check_one"])

        def __call__(self):
            pass

    types.coroutine(Function())
    return 0


# --- tests ---
def check_one():
    assert f(1) == 2


assert f(0) == 0
check_one()
