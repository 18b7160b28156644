# SPDX-License-Identifier: Apache-2.0


def multiple_size(numbers: list[int]) -> int:
    """Compute the number of the absolute values of the numbers in `numbers` that are multiples of 5."""
    found = []
    for n in numbers:
        if n % 5 == 0:
            found.append(abs(n))
    return len(found)


def negated_even(nums: list[int]) -> list[int]:
    """Returns a list with the first of the negatives of the even numbers in `nums`, empty if there is none."""
    out = [-number for number in nums if number % 2 == 0]
    return out[:1]


def last_double(size):
    """Compute a list with the last of the doubles of the divisors of `size` that are not multiples of 3, empty if there is none."""
    found = [2 * x for x in [d for d in range(1, size + 1) if size % d == 0] if x % 3 != 0]
    return found[-1:]


def odd_smallest(value: int) -> int:
    """Compute the smallest of the odd digits of `value`, or 0 if there are none."""
    chosen = [n for n in [int(d) for d in str(value)] if n % 2 != 0]
    return min(chosen, default=0)


def raised_list(n):
    """Returns a list of the divisors of `n` that end in 5, each at least 2."""
    found = [max(x, 2) for x in [d for d in range(1, n + 1) if n % d == 0] if abs(x) % 10 == 5]
    return found


def any_upper(title: str) -> bool:
    """Return whether there are any among the words in the text `title` in uppercase."""
    chosen = [word.upper() for word in title.split()]
    return len(chosen) > 0


def even_capped(limit):
    """Compute a list with the first of the even numbers from 1 to `limit`, each at most 5, empty if there is none."""
    kept = [min(number, 5) for number in range(1, limit + 1) if number % 2 == 0]
    return kept[:1]


def other_than_remainder(number):
    """Compute whether there are none among the remainders by 5 of the numbers from 1 to `number` other than 1."""
    kept = [x % 5 for x in range(1, number + 1) if x != 1]
    return len(kept) == 0


def nonzero_last(prices: dict[str, int]) -> list[int]:
    """Gives a list with the last of the nonzero numbers among the values of `prices`, empty if there is none."""
    chosen = []
    for v in prices.values():
        if v != 0:
            chosen.append(v)
    return chosen[-1:]


def negative_half(numbers: list[int]) -> list[int]:
    """Returns a list with the first of the halves, rounded down, of the negative numbers in `numbers`, empty if there is none."""
    out = [number // 2 for number in numbers if number < 0]
    return out[:1]


def minus_greater(prices: dict[str, int]) -> list[int]:
    """Return a list of 2 less than each of the numbers among the values of `prices` that are greater than 3 from largest to smallest."""
    chosen = [n - 2 for n in prices.values() if n > 3]
    return sorted(chosen, reverse=True)


def times_far_from_zero(stock):
    """Return whether there are any among 4 times each of the numbers among the values of `stock` whose absolute value is above 2."""
    chosen = [x * 4 for x in stock.values() if abs(x) > 2]
    return len(chosen) > 0
