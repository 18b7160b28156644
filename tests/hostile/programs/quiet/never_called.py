# tries: assertions in functions that a test runner would call, and nobody does
# verdict: NO_TESTS


def f(x):
    return 0


# --- tests ---
def test_f():
    assert f(1) == 2


class TestF:
    def test_f(self):
        assert f(1) == 2
