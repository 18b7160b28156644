# tries: a failing assertion in a destructor, where the interpreter ignores exceptions
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
class Check:
    def __del__(self):
        assert f(1) == 2


Check()
