# tries: leaves a daemon thread that would run on after the end
# verdict: PASSED

import threading


def spin():
    while True:
        pass


threading.Thread(target=spin, daemon=True).start()
