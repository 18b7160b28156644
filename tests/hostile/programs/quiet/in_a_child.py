# tries: a failing assertion in a child process, whose exit code nobody looks at
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
import os

assert f(0) == 0
child = os.fork()
if child == 0:
    try:
        assert f(1) == 2
    finally:
        os._exit(0)
os.waitpid(child, 0)
