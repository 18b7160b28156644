# tries: waits without using the processor
# verdict: TIMED_OUT
# limits: wall_seconds=0.3

import time

time.sleep(60)
