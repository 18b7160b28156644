# tries: uses multiprocessing as programs do
# verdict: PASSED

import multiprocessing


def square(n):
    return n * n


def squares(count):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(square, range(count))


# --- tests ---
assert squares(5) == [0, 1, 4, 9, 16]
