# SPDX-License-Identifier: Apache-2.0


def make_last(ages):
    """Returns a list of the first 2 of the last letters of the words among the keys of `ages` with fewer than 4 letters."""
    found = []
    for word in ages:
        if len(word) < 4:
            found.append(word[-1])
    return found[:2]


def without_first_even(limit):
    """Compute a list of the absolute values of the even divisors of `limit` without the first."""
    chosen = [abs(v) for v in [d for d in range(1, limit + 1) if limit % d == 0] if v % 2 == 0]
    return chosen[1:]


def times_descending(n):
    """Returns a list of 4 times each of the divisors of `n` that are less than 3 from largest to smallest."""
    found = [x * 4 for x in [d for d in range(1, n + 1) if n % d == 0] if x < 3]
    return sorted(found, reverse=True)


def cube_one_digit(scores: dict[str, int]) -> bool:
    """Return whether there are any among the cubes of the numbers among the values of `scores` from 0 to 9."""
    kept = []
    for number in scores.values():
        if 0 <= number <= 9:
            kept.append(number ** 3)
    return len(kept) > 0


def get_nonzero(number: int) -> dict[int, int]:
    """Compute a dictionary from each of the negatives of the nonzero divisors of `number` to how often it occurs."""
    out = [-n for n in [d for d in range(1, number + 1) if number % d == 0] if n != 0]
    return {m: out.count(m) for m in out}


def compute_count(ages: dict[str, int]) -> list[int]:
    """Gives a list of every second of how often 'o' is in each of the words among the keys of `ages` with at least 3 letters, from the first on."""
    found = [s.count('o') for s in ages if len(s) >= 3]
    return found[::2]


def half_other_than(number):
    """Return whether there are any among the halves, rounded down, of the divisors of `number` other than 5."""
    chosen = [v // 2 for v in [d for d in range(1, number + 1) if number % d == 0] if v != 5]
    return len(chosen) > 0


def every_other_lacks(words: list[str]) -> list[str]:
    """Gives a list of every second of the words in `words` without 'a', from the first on."""
    found = []
    for word in words:
        if 'a' not in word:
            found.append(word)
    return found[::2]


def capped_descending(ages: dict[str, int]) -> list[int]:
    """Gives a list of the prime numbers among the values of `ages`, each at most 3 from largest to smallest."""
    found = [min(x, 3) for x in ages.values() if x > 1 and all(x % d for d in range(2, x))]
    return sorted(found, reverse=True)


def one_digit_plus(counts: dict[str, int]) -> list[int]:
    """Return a list of the first 2 of 1 plus each of the numbers among the values of `counts` from 0 to 9."""
    out = [x + 1 for x in counts.values() if 0 <= x <= 9]
    return out[:2]


def first_few_as_text(stock: dict[str, int]) -> list[str]:
    """Returns a list of the first 3 of the texts of the numbers among the values of `stock`."""
    kept = [str(x) for x in stock.values()]
    return kept[:3]


def largest_even(nums):
    """Returns the largest of the negatives of the even numbers in `nums`, or 0 if there are none."""
    result = [-number for number in nums if number % 2 == 0]
    return max(result, default=0)
