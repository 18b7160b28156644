# tries: has threads take turns as often as the interpreter can
# verdict: PASSED

import sys
import threading

sys.setswitchinterval(1e-9)
total = 0


def count():
    global total
    for _ in range(2000):
        total += 1


threads = [threading.Thread(target=count) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
# --- tests ---
assert 0 < total <= 8000
