# SPDX-License-Identifier: Apache-2.0


def get_ends(ages):
    """Return a list with the last of the vowel counts of the words among the keys of `ages` that end with 'e', empty if there is none."""
    found = [sum(c in 'aeiou' for c in s) for s in ages if s.endswith('e')]
    return found[-1:]


def list_ends(scores):
    """Return a list of the words among the keys of `scores` that end with 's', each capitalized."""
    chosen = [s.capitalize() for s in scores if s.endswith('s')]
    return chosen


def compute_even(limit):
    """Compute the product of the even divisors of `limit`, each at least 2, or 1 if there are none."""
    result = [max(n, 2) for n in [d for d in range(1, limit + 1) if limit % d == 0] if n % 2 == 0]
    total = 1
    for m in result:
        total *= m
    return total


def other_than_half(n: int) -> list[int]:
    """Returns a list with the first of the halves, rounded down, of the digits of `n` other than 2, empty if there is none."""
    found = [v // 2 for v in [int(d) for d in str(n)] if v != 2]
    return found[:1]


def collect_counts(n: int) -> dict[int, int]:
    """Return a dictionary from each of the cubes of the digits of `n` that are greater than 2 to how often it occurs."""
    out = [x ** 3 for x in [int(d) for d in str(n)] if x > 2]
    return {m: out.count(m) for m in out}


def double_distinct_count(n: int) -> int:
    """Return how many distinct values are among the doubles of the divisors of `n` that are at most 3."""
    found = [x * 2 for x in [d for d in range(1, n + 1) if n % d == 0] if x <= 3]
    return len(set(found))


def capitalize_longest(words: list[str]) -> str:
    """Gives the longest of the words in `words` that read the same backwards, each capitalized, or '' if there are none."""
    result = [s.capitalize() for s in words if s == s[::-1]]
    return max(result, key=len, default='')


def minus_at_least(values):
    """Gives the mean of 1 less than each of the numbers in `values` that are at least 4, rounded down, or 0 if there are none."""
    chosen = []
    for v in values:
        if v >= 4:
            chosen.append(v - 1)
    return sum(chosen) // len(chosen) if chosen else 0


def collect_less(data):
    """Return the product of 10 plus each of the numbers in `data` that are less than 6, or 1 if there are none."""
    found = [number + 10 for number in data if number < 6]
    total = 1
    for m in found:
        total *= m
    return total


def raised_largest(ages):
    """Compute the largest of the numbers among the values of `ages`, each at least 0, or 0 if there are none."""
    chosen = [max(number, 0) for number in ages.values()]
    return max(chosen, default=0)


def ends_in_triple(number: int) -> list[int]:
    """Returns the running totals of the triples of the numbers from 1 to `number` that end in 5."""
    result = []
    for v in range(1, number + 1):
        if abs(v) % 10 == 5:
            result.append(3 * v)
    return [sum(result[:i + 1]) for i in range(len(result))]


def find_counts(limit):
    """Gives a dictionary from each of the cubes of the digits of `limit` that are less than 3 to how often it occurs."""
    chosen = [x ** 3 for x in [int(d) for d in str(limit)] if x < 3]
    return {m: chosen.count(m) for m in chosen}
