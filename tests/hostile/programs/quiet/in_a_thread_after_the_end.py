# tries: a failing assertion in a thread that lives longer than the tests
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
import threading
import time


def check():
    time.sleep(0.1)
    assert f(1) == 2


assert f(0) == 0
threading.Thread(target=check).start()
