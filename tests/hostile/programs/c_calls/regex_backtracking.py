# tries: a regular expression that takes exponential time, in C
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import re

re.match(r"(a+)+$", "a" * 40 + "b")
