# SPDX-License-Identifier: Apache-2.0


def count_lacks(ages: dict[str, int]) -> list[int]:
    """Return a list with the last of how often 'a' is in each of the words among the keys of `ages` without 'e', empty if there is none."""
    out = [word.count('a') for word in ages if 'e' not in word]
    return out[-1:]


def take_far_from_zero(number: int) -> list[int]:
    """Compute a sorted list of the distinct values of the divisors of `number` whose absolute value is above 1, each at most 5."""
    kept = [min(n, 5) for n in [d for d in range(1, number + 1) if number % d == 0] if abs(n) > 1]
    return sorted(set(kept))


def half_spread(n: int) -> int:
    """Return the largest minus the smallest of the halves, rounded down, of the divisors of `n` that are not multiples of 5, or 0 if there are none."""
    result = [number // 2 for number in [d for d in range(1, n + 1) if n % d == 0] if number % 5 != 0]
    return max(result, default=0) - min(result, default=0)


def long_enough_reversed(parts):
    """Gives a list of the first 3 of the words in `parts` with at least 4 letters, each spelled backwards."""
    found = [w[::-1] for w in parts if len(w) >= 4]
    return found[:3]


def ends_in_size(size):
    """Compute the number of the numbers from 1 to `size` that end in 5, each at most 5."""
    chosen = []
    for v in range(1, size + 1):
        if abs(v) % 10 == 5:
            chosen.append(min(v, 5))
    return len(chosen)


def collect_ascending(value):
    """Returns a sorted list of the halves, rounded down, of the numbers from 1 to `value` that are at least 2."""
    chosen = [n // 2 for n in range(1, value + 1) if n >= 2]
    return sorted(chosen)


def other_than_list(number):
    """Gives a list of the last digits of the divisors of `number` other than 3."""
    chosen = []
    for n in [d for d in range(1, number + 1) if number % d == 0]:
        if n != 3:
            chosen.append(abs(n) % 10)
    return chosen


def absolute_none(number):
    """Return whether there are none among the absolute values of the even numbers from 1 to `number`."""
    chosen = [abs(v) for v in range(1, number + 1) if v % 2 == 0]
    return len(chosen) == 0


def capitalized_count(prices: dict[str, int]) -> list[int]:
    """Returns a list of how often 'a' is in each of the words among the keys of `prices` that start with a capital in reverse order."""
    kept = []
    for w in prices:
        if w[0].isupper():
            kept.append(w.count('a'))
    return kept[::-1]


def square_at_most(value: int) -> int:
    """Compute the largest of the squares of the numbers from 1 to `value` that are at most 3, or 0 if there are none."""
    result = []
    for x in range(1, value + 1):
        if x <= 3:
            result.append(x * x)
    return max(result, default=0)


def find_at_least(stock):
    """Return a list of every second of the remainders by 4 of the numbers among the values of `stock` that are at least 4, from the first on."""
    result = [v % 4 for v in stock.values() if v >= 4]
    return result[::2]


def mean_negated(number):
    """Compute the mean of the negatives of the numbers from 1 to `number` that are at least 4, rounded down, or 0 if there are none."""
    result = [-n for n in range(1, number + 1) if n >= 4]
    return sum(result) // len(result) if result else 0
