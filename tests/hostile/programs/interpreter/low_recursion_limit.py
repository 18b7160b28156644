# tries: raises where the recursion limit leaves no room to say so
# verdict: RAISED

import sys

sys.setrecursionlimit(12)


def f(x):
    return f(x + 1)


f(0)
