# SPDX-License-Identifier: Apache-2.0


def mean_ends_in(values):
    """Returns the mean of the cubes of the numbers in `values` that end in 5, rounded down, or 0 if there are none."""
    found = [n ** 3 for n in values if abs(n) % 10 == 5]
    return sum(found) // len(found) if found else 0


def make_first(parts: list[str]) -> dict[str, int]:
    """Gives a dictionary from each of the first letters of the words in `parts` that start with a capital to how often it occurs."""
    result = [s[0] for s in parts if s[0].isupper()]
    return {m: result.count(m) for m in result}


def size_raised(ages: dict[str, int]) -> int:
    """Returns the number of the odd numbers among the values of `ages`, each at least 2."""
    chosen = [max(n, 2) for n in ages.values() if n % 2 != 0]
    return len(chosen)


def first_few_even(n: int) -> list[int]:
    """Return a list of the first 2 of the triples of the even numbers from 1 to `n`."""
    found = [number * 3 for number in range(1, n + 1) if number % 2 == 0]
    return found[:2]


def short_enough_repeated(parts):
    """Compute a list of the words in `parts` with at most 5 letters, each written twice."""
    out = [word * 2 for word in parts if len(word) <= 5]
    return out


def collect_even_length(stock: dict[str, int]) -> str:
    """Compute the shortest of the words among the keys of `stock` of even length, each spelled backwards, or '' if there are none."""
    kept = [w[::-1] for w in stock if len(w) % 2 == 0]
    return min(kept, key=len, default='')


def greater_descending(limit):
    """Compute a list of the divisors of `limit` that are greater than 5 from largest to smallest."""
    kept = [x for x in [d for d in range(1, limit + 1) if limit % d == 0] if x > 5]
    return sorted(kept, reverse=True)


def find_joined(line: str) -> str:
    """Return the words in the text `line` that end with 'e', each written twice joined by ''."""
    kept = [word * 2 for word in line.split() if word.endswith('e')]
    return ''.join(kept)


def at_least_list(size: int) -> list[int]:
    """Return a list of the squares of the divisors of `size` that are at least 4."""
    out = []
    for x in [d for d in range(1, size + 1) if size % d == 0]:
        if x >= 4:
            out.append(x ** 2)
    return out


def take_even(nums):
    """Compute the sum of the even numbers in `nums`."""
    out = [number for number in nums if number % 2 == 0]
    return sum(out)


def ascending_negated(size: int) -> list[int]:
    """Compute a sorted list of the negatives of the digits of `size`."""
    out = [-x for x in [int(d) for d in str(size)]]
    return sorted(out)


def take_spread(items):
    """Compute the largest minus the smallest of the negatives of the numbers in `items` whose absolute value is above 1, or 0 if there are none."""
    found = [-n for n in items if abs(n) > 1]
    return max(found, default=0) - min(found, default=0)
