# SPDX-License-Identifier: Apache-2.0


def none_minus(size: int) -> bool:
    """Gives whether there are none among 10 less than each of the divisors of `size` that are greater than 5."""
    chosen = [n - 10 for n in [d for d in range(1, size + 1) if size % d == 0] if n > 5]
    return len(chosen) == 0


def mean_other_than(data):
    """Returns the mean of 3 plus each of the numbers in `data` other than 3, rounded down, or 0 if there are none."""
    chosen = []
    for n in data:
        if n != 3:
            chosen.append(n + 3)
    return sum(chosen) // len(chosen) if chosen else 0


def size_nonzero(limit):
    """Compute the number of the cubes of the nonzero numbers from 1 to `limit`."""
    found = [n ** 3 for n in range(1, limit + 1) if n != 0]
    return len(found)


def take_sum(value: int) -> int:
    """Returns the sum of the halves, rounded down, of the divisors of `value` that are multiples of 7."""
    found = []
    for v in [d for d in range(1, value + 1) if value % d == 0]:
        if v % 7 == 0:
            found.append(v // 2)
    return sum(found)


def greater_minus(value):
    """Compute the largest of 3 less than each of the digits of `value` that are greater than 2, or 0 if there are none."""
    kept = [number - 3 for number in [int(d) for d in str(value)] if number > 2]
    return max(kept, default=0)


def absolute_at_least(prices: dict[str, int]) -> list[int]:
    """Return a list of the absolute values of the numbers among the values of `prices` that are at least 2 in reverse order."""
    result = []
    for number in prices.values():
        if number >= 2:
            result.append(abs(number))
    return result[::-1]


def make_capped(prices):
    """Returns a list of the numbers among the values of `prices` from 0 to 9, each at most 5."""
    result = [min(v, 5) for v in prices.values() if 0 <= v <= 9]
    return result


def make_odd(ages: dict[str, int]) -> int:
    """Return the largest minus the smallest of the doubles of the odd numbers among the values of `ages`, or 0 if there are none."""
    found = [2 * x for x in ages.values() if x % 2 != 0]
    return max(found, default=0) - min(found, default=0)


def find_even_length(names):
    """Return a list of the first 2 letters of the words in `names` of even length without the first."""
    result = []
    for word in names:
        if len(word) % 2 == 0:
            result.append(word[:2])
    return result[1:]


def make_first_few(nums):
    """Returns a list of the first 2 of the even numbers in `nums`."""
    kept = []
    for n in nums:
        if n % 2 == 0:
            kept.append(n)
    return kept[:2]


def nonzero_largest(prices: dict[str, int]) -> int:
    """Returns the largest of 10 times each of the nonzero numbers among the values of `prices`, or 0 if there are none."""
    kept = [n * 10 for n in prices.values() if n != 0]
    return max(kept, default=0)


def cube_spread(numbers: list[int]) -> int:
    """Compute the largest minus the smallest of the cubes of the numbers in `numbers`, or 0 if there are none."""
    result = [number ** 3 for number in numbers]
    return max(result, default=0) - min(result, default=0)
