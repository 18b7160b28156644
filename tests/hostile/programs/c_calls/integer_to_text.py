# tries: an integer of many digits made into text, which takes quadratic time in C
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import sys

sys.set_int_max_str_digits(0)
text = str(1 << (1 << 24))
