# tries: replaces every clock that Python has, so that no time seems to pass
# verdict: TIMED_OUT
# limits: wall_seconds=0.4

import time

for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
    setattr(time, name, lambda: 0.0)
time.sleep = lambda seconds: None
while time.monotonic() < 1:
    pass
