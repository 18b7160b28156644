# tries: hides the channel while a child of the tests fails, and puts it back for their end
# verdict: FAILED_ASSERTION or EXITED_EARLY

import os
import stat

kept = {}
for number in range(3, 256):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            kept[number] = None
    except OSError:
        pass
for number in kept:
    kept[number] = os.dup(number)
    os.dup2(os.open("/dev/null", os.O_WRONLY), number)


def f(x):
    if x == 7:
        for number, copy in kept.items():
            os.dup2(copy, number)
        return 7
    return 0


# --- tests ---
child = os.fork()
if child == 0:
    try:
        assert f(1) == 2
    finally:
        os._exit(0)
os.waitpid(child, 0)
assert f(7) == 7
