# tries: examples in a docstring, which testmod reports and does not raise
# verdict: NO_TESTS


def f(x):
    """
    >>> f(1)
    2
    """
    return 0


# --- tests ---
import doctest

doctest.testmod()
