# tries: replaces the standard streams by objects that raise whatever is asked of them
# verdict: PASSED

import sys


class Stream:
    def __getattr__(self, name):
        raise RuntimeError(name)


sys.stdout = sys.stderr = Stream()
