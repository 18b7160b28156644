# tries: takes its trace function away, whose destructor sets another one that jumps over a failing test
# verdict: EXITED_EARLY or FAILED_ASSERTION

import sys


def jump(frame, event, argument):
    if frame.f_code.co_filename == "<tests>" and event == "line" and frame.f_lineno == 2:
        frame.f_lineno = 3
    return jump


class Leaves:
    def __call__(self, *arguments):
        return None

    def __del__(self):
        sys.settrace(jump)


def f(x):
    sys.settrace(Leaves())
    sys.settrace(None)
    sys._getframe(1).f_trace = jump
    return x


# --- tests ---
assert f(1) == 1
assert f(1) == 2
assert f(3) == 3
