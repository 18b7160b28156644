# SPDX-License-Identifier: Apache-2.0


def compute_as_text(size: int) -> list[str]:
    """Returns a list of the texts of the numbers from 1 to `size` that are less than 4 in reverse order."""
    out = [str(number) for number in range(1, size + 1) if number < 4]
    return out[::-1]


def get_odd(n: int) -> list[int]:
    """Return a list of the absolute values of the odd digits of `n`."""
    kept = [abs(v) for v in [int(d) for d in str(n)] if v % 2 == 1]
    return kept


def raised_first_few(size: int) -> list[int]:
    """Returns a list of the first 2 of the negative divisors of `size`, each at least 0."""
    chosen = [max(n, 0) for n in [d for d in range(1, size + 1) if size % d == 0] if n < 0]
    return chosen[:2]


def first_without_first(text: str) -> list[str]:
    """Compute a list of the first letters of the words in the text `text` without the first."""
    out = [word[0] for word in text.split()]
    return out[1:]


def other_than_capped(n):
    """Gives whether there are none among the digits of `n` other than 2, each at most 3."""
    found = [min(x, 3) for x in [int(d) for d in str(n)] if x != 2]
    return len(found) == 0


def first_ends(labels: list[str]) -> list[str]:
    """Return a list with the first of the first letters of the words in `labels` that end with 's', empty if there is none."""
    out = [word[0] for word in labels if word.endswith('s')]
    return out[:1]


def counts_other_than(n: int) -> dict[int, int]:
    """Returns a dictionary from each of the digits of `n` other than 1, each at least 2 to how often it occurs."""
    result = []
    for x in [int(d) for d in str(n)]:
        if x != 1:
            result.append(max(x, 2))
    return {m: result.count(m) for m in result}


def far_from_zero_running(limit: int) -> list[int]:
    """Return the running totals of the divisors of `limit` whose absolute value is above 1, each at least 2."""
    out = [max(v, 2) for v in [d for d in range(1, limit + 1) if limit % d == 0] if abs(v) > 1]
    return [sum(out[:i + 1]) for i in range(len(out))]


def any_minus(ages: dict[str, int]) -> bool:
    """Compute whether there are any among 2 less than each of the numbers among the values of `ages` that are less than 4."""
    found = [v - 2 for v in ages.values() if v < 4]
    return len(found) > 0


def long_enough_distinct(scores):
    """Gives a sorted list of the distinct values of the last letters of the words among the keys of `scores` with at least 4 letters."""
    kept = []
    for s in scores:
        if len(s) >= 4:
            kept.append(s[-1])
    return sorted(set(kept))


def first_minus(numbers):
    """Compute a list with the first of 1 less than each of the numbers in `numbers` whose absolute value is above 2, empty if there is none."""
    kept = []
    for n in numbers:
        if abs(n) > 2:
            kept.append(n - 1)
    return kept[:1]


def find_capped(value: int) -> list[int]:
    """Gives a list of the numbers from 1 to `value` whose absolute value is above 2, each at most 3 without the first."""
    result = []
    for v in range(1, value + 1):
        if abs(v) > 2:
            result.append(min(v, 3))
    return result[1:]
