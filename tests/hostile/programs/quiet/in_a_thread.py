# tries: a failing assertion in another thread, whose exception ends that thread alone
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
import threading


def check():
    assert f(1) == 2


thread = threading.Thread(target=check)
thread.start()
thread.join()
