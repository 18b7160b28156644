# tries: wants more processors than there are, to pass for one that was kept waiting
# verdict: TIMED_OUT
# limits: wall_seconds=1 cpu_seconds=1

import threading


def burn():
    while True:
        pass


for _ in range(16):
    threading.Thread(target=burn, daemon=True).start()
burn()
