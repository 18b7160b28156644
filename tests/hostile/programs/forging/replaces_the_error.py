# tries: replaces AssertionError by a class that nobody looks for, and whatever would print it
# verdict: FAILED_ASSERTION

import builtins
import sys
import traceback


class Fine(Exception):
    pass


builtins.AssertionError = builtins.BaseException = builtins.Exception = Fine
sys.excepthook = sys.unraisablehook = lambda *arguments: None
traceback.print_exception = traceback.walk_tb = lambda *arguments, **rest: iter(())


def f(x):
    return 0


# --- tests ---
assert f(1) == 2
