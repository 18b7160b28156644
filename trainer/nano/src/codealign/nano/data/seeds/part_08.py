# SPDX-License-Identifier: Apache-2.0


def get_capitalized(labels):
    """Returns whether there are none among the words in `labels` that start with a capital, each followed by '!'."""
    out = [s + '!' for s in labels if s[0].isupper()]
    return len(out) == 0


def first_less(size: int) -> list[int]:
    """Compute a list with the first of the absolute values of the divisors of `size` that are less than 4, empty if there is none."""
    chosen = [abs(number) for number in [d for d in range(1, size + 1) if size % d == 0] if number < 4]
    return chosen[:1]


def negated_last(number):
    """Gives a list with the last of the negatives of the even numbers from 1 to `number`, empty if there is none."""
    out = []
    for x in range(1, number + 1):
        if x % 2 == 0:
            out.append(-x)
    return out[-1:]


def mean_less(prices: dict[str, int]) -> int:
    """Return the mean of the triples of the numbers among the values of `prices` that are less than 5, rounded down, or 0 if there are none."""
    kept = []
    for x in prices.values():
        if x < 5:
            kept.append(3 * x)
    return sum(kept) // len(kept) if kept else 0


def length_even_length(names: list[str]) -> int:
    """Return the largest minus the smallest of the lengths of the words in `names` of even length, or 0 if there are none."""
    found = []
    for s in names:
        if len(s) % 2 == 0:
            found.append(len(s))
    return max(found, default=0) - min(found, default=0)


def find_first_few(limit):
    """Gives a list of the first 2 of the digits of `limit` that are less than 3, each at most 3."""
    out = [min(x, 3) for x in [int(d) for d in str(limit)] if x < 3]
    return out[:2]


def remainder_backwards(size):
    """Returns a list of the remainders by 3 of the divisors of `size` in reverse order."""
    result = []
    for v in [d for d in range(1, size + 1) if size % d == 0]:
        result.append(v % 3)
    return result[::-1]


def odd_double(n):
    """Compute a dictionary from each of the doubles of the odd divisors of `n` to how often it occurs."""
    out = [number * 2 for number in [d for d in range(1, n + 1) if n % d == 0] if number % 2 != 0]
    return {m: out.count(m) for m in out}


def collect_multiple(number: int) -> list[int]:
    """Returns a sorted list of 2 plus each of the digits of `number` that are multiples of 3."""
    found = [x + 2 for x in [int(d) for d in str(number)] if x % 3 == 0]
    return sorted(found)


def compute_backwards(names):
    """Gives a list of the words in `names` with fewer than 3 letters, each written twice in reverse order."""
    result = [w * 2 for w in names if len(w) < 3]
    return result[::-1]


def collect_short_enough(counts: dict[str, int]) -> str:
    """Compute the longest of the words among the keys of `counts` with at most 5 letters, each followed by '!', or '' if there are none."""
    found = []
    for word in counts:
        if len(word) <= 5:
            found.append(word + '!')
    return max(found, key=len, default='')


def multiple_largest(number: int) -> int:
    """Return the largest of the triples of the divisors of `number` that are multiples of 7, or 0 if there are none."""
    out = []
    for x in [d for d in range(1, number + 1) if number % d == 0]:
        if x % 7 == 0:
            out.append(3 * x)
    return max(out, default=0)
