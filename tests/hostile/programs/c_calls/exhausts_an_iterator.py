# tries: an endless iterator, emptied by C code that never comes back to the interpreter
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import collections
import itertools

collections.deque(itertools.repeat(None), maxlen=0)
