# tries: waits for a lock on a file that it holds through another descriptor
# verdict: TIMED_OUT
# limits: wall_seconds=0.3

import fcntl

first, second = open("file", "w"), open("file", "w")
fcntl.flock(first, fcntl.LOCK_EX)
fcntl.flock(second, fcntl.LOCK_EX)
