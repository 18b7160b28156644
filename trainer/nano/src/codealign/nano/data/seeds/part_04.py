# SPDX-License-Identifier: Apache-2.0


def multiple_spread(size):
    """Compute the largest minus the smallest of the squares of the numbers from 1 to `size` that are multiples of 5, or 0 if there are none."""
    found = []
    for v in range(1, size + 1):
        if v % 5 == 0:
            found.append(v ** 2)
    return max(found, default=0) - min(found, default=0)


def product_half(number: int) -> int:
    """Compute the product of the halves, rounded down, of the digits of `number` that end in 1, or 1 if there are none."""
    result = []
    for n in [int(d) for d in str(number)]:
        if abs(n) % 10 == 1:
            result.append(n // 2)
    total = 1
    for m in result:
        total *= m
    return total


def find_half(values: list[int]) -> list[int]:
    """Gives a list with the last of the halves, rounded down, of the numbers in `values`, empty if there is none."""
    found = [number // 2 for number in values]
    return found[-1:]


def get_starts(parts):
    """Returns a sorted list of the vowel counts of the words in `parts` that start with 'a'."""
    out = [sum(c in 'aeiou' for c in s) for s in parts if s.startswith('a')]
    return sorted(out)


def capped_backwards(stock):
    """Return a list of the nonzero numbers among the values of `stock`, each at most 5 in reverse order."""
    result = [min(number, 5) for number in stock.values() if number != 0]
    return result[::-1]


def compute_raised(limit: int) -> list[int]:
    """Returns a list with the last of the negative digits of `limit`, each at least 0, empty if there is none."""
    result = [max(number, 0) for number in [int(d) for d in str(limit)] if number < 0]
    return result[-1:]


def without_first_minus(limit: int) -> list[int]:
    """Gives a list of 3 less than each of the digits of `limit` from 0 to 9 without the first."""
    kept = [number - 3 for number in [int(d) for d in str(limit)] if 0 <= number <= 9]
    return kept[1:]


def every_other_triple(n: int) -> list[int]:
    """Compute a list of every second of the triples of the positive digits of `n`, from the first on."""
    kept = [x * 3 for x in [int(d) for d in str(n)] if x > 0]
    return kept[::2]


def ascending_minus(limit: int) -> list[int]:
    """Gives a sorted list of 2 less than each of the numbers from 1 to `limit` that end in 2."""
    kept = []
    for v in range(1, limit + 1):
        if abs(v) % 10 == 2:
            kept.append(v - 2)
    return sorted(kept)


def compute_last_digit(scores):
    """Returns the mean of the last digits of the odd numbers among the values of `scores`, rounded down, or 0 if there are none."""
    found = []
    for x in scores.values():
        if x % 2 != 0:
            found.append(abs(x) % 10)
    return sum(found) // len(found) if found else 0


def distinct_last(labels):
    """Gives a sorted list of the distinct values of the last letters of the words in `labels` of even length."""
    found = [s[-1] for s in labels if len(s) % 2 == 0]
    return sorted(set(found))


def times_greater(items: list[int]) -> list[int]:
    """Gives a list with the first of 10 times each of the numbers in `items` that are greater than 5, empty if there is none."""
    result = [number * 10 for number in items if number > 5]
    return result[:1]
