# tries: spreads its work over children to use more CPU time than one process may
# verdict: TIMED_OUT
# limits: cpu_seconds=1

import os

for _ in range(3):
    os.fork()
while True:
    pass
