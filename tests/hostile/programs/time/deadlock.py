# tries: waits for a lock that it holds itself
# verdict: TIMED_OUT
# limits: wall_seconds=0.3

import threading

lock = threading.Lock()
lock.acquire()
lock.acquire()
