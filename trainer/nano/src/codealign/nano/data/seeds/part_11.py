# SPDX-License-Identifier: Apache-2.0


def at_least_smallest(size):
    """Gives the smallest of the absolute values of the digits of `size` that are at least 3, or 0 if there are none."""
    result = []
    for number in [int(d) for d in str(size)]:
        if number >= 3:
            result.append(abs(number))
    return min(result, default=0)


def any_far_from_zero(number):
    """Gives whether there are any among the cubes of the digits of `number` whose absolute value is above 1."""
    out = []
    for x in [int(d) for d in str(number)]:
        if abs(x) > 1:
            out.append(x ** 3)
    return len(out) > 0


def ascending_square(value: int) -> list[int]:
    """Returns a sorted list of the squares of the nonzero divisors of `value`."""
    chosen = [v * v for v in [d for d in range(1, value + 1) if value % d == 0] if v != 0]
    return sorted(chosen)


def at_least_running(scores):
    """Returns the running totals of 10 times each of the numbers among the values of `scores` that are at least 4."""
    result = [x * 10 for x in scores.values() if x >= 4]
    return [sum(result[:i + 1]) for i in range(len(result))]


def make_at_most(n: int) -> int:
    """Return the product of the absolute values of the numbers from 1 to `n` that are at most 6, or 1 if there are none."""
    result = []
    for v in range(1, n + 1):
        if v <= 6:
            result.append(abs(v))
    total = 1
    for m in result:
        total *= m
    return total


def absolute_multiple(stock):
    """Gives the running totals of the absolute values of the numbers among the values of `stock` that are multiples of 3."""
    found = []
    for number in stock.values():
        if number % 3 == 0:
            found.append(abs(number))
    return [sum(found[:i + 1]) for i in range(len(found))]


def marked_shortest(prices: dict[str, int]) -> str:
    """Gives the shortest of the words among the keys of `prices` that start with a capital, each followed by '!', or '' if there are none."""
    chosen = [s + '!' for s in prices if s[0].isupper()]
    return min(chosen, key=len, default='')


def minus_distinct_count(number):
    """Return how many distinct values are among 1 less than each of the numbers from 1 to `number` that are less than 6."""
    found = []
    for x in range(1, number + 1):
        if x < 6:
            found.append(x - 1)
    return len(set(found))


def collect_distinct(names: list[str]) -> list[str]:
    """Compute a sorted list of the distinct values of the words in `names` of even length, each written twice."""
    result = []
    for s in names:
        if len(s) % 2 == 0:
            result.append(s * 2)
    return sorted(set(result))


def take_without_first(n: int) -> list[int]:
    """Return a list of 2 less than each of the numbers from 1 to `n` other than 2 without the first."""
    chosen = [v - 2 for v in range(1, n + 1) if v != 2]
    return chosen[1:]


def compute_negative(size: int) -> int:
    """Gives the sum of 10 plus each of the negative divisors of `size`."""
    kept = [x + 10 for x in [d for d in range(1, size + 1) if size % d == 0] if x < 0]
    return sum(kept)


def double_spread(ages: dict[str, int]) -> int:
    """Compute the largest minus the smallest of the doubles of the numbers among the values of `ages`, or 0 if there are none."""
    found = [n * 2 for n in ages.values()]
    return max(found, default=0) - min(found, default=0)
