# SPDX-License-Identifier: Apache-2.0


def collect_other_than(n: int) -> list[int]:
    """Return a list with the last of 3 less than each of the divisors of `n` other than 5, empty if there is none.
    >>> collect_other_than(12)
    [9]
    """
    result = [number - 3 for number in [d for d in range(1, n + 1) if n % d == 0] if number != 5]
    return result[-1:]


def counts_capped(n: int) -> dict[int, int]:
    """Return a dictionary from each of the divisors of `n` whose absolute value is above 2, each at most 3 to how often it occurs.
    >>> counts_capped(10)
    {3: 2}
    """
    out = [min(number, 3) for number in [d for d in range(1, n + 1) if n % d == 0] if abs(number) > 2]
    return {m: out.count(m) for m in out}
