# tries: recursion through C code, with Python's own limit out of the way
# verdict: CRASHED

import sys

sys.setrecursionlimit(10**9)


class Mirror:
    def __repr__(self):
        return repr(self)


repr(Mirror())
