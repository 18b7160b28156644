# tries: uses up processors, processes, descriptors, disk and output while another program runs
# verdict: TIMED_OUT
# limits: wall_seconds=1

import os

os.set_blocking(1, False)
for _ in range(14):
    if os.fork() == 0:
        break
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
while True:
    try:
        os.write(1, b"x" * 100)
        os.write(2, b"x" * 100)
    except OSError:
        pass
    for _ in range(100_000):
        pass
