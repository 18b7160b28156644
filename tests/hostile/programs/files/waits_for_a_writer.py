# tries: opens a FIFO that nobody writes to
# verdict: TIMED_OUT
# limits: wall_seconds=0.3

import os

os.mkfifo("queue")
open("queue").read()
