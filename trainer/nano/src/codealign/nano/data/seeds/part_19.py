# SPDX-License-Identifier: Apache-2.0


def collect_vowels(message: str) -> list[int]:
    """Gives a list with the last of the vowel counts of the words in the text `message` that start with a capital, empty if there is none."""
    out = [sum(c in 'aeiou' for c in s) for s in message.split() if s[0].isupper()]
    return out[-1:]


def find_none(value: int) -> bool:
    """Returns whether there are none among the squares of the digits of `value` that end in 1."""
    kept = [v ** 2 for v in [int(d) for d in str(value)] if abs(v) % 10 == 1]
    return len(kept) == 0


def take_half(numbers):
    """Compute the largest of the halves, rounded down, of the nonzero numbers in `numbers`, or 0 if there are none."""
    found = [x // 2 for x in numbers if x != 0]
    return max(found, default=0)


def capped_largest(stock):
    """Gives the largest of the numbers among the values of `stock`, each at most 5, or 0 if there are none."""
    found = [min(v, 5) for v in stock.values()]
    return max(found, default=0)


def get_less(data: list[int]) -> int:
    """Return the largest of the triples of the numbers in `data` that are less than 6, or 0 if there are none."""
    out = [3 * n for n in data if n < 6]
    return max(out, default=0)


def none_prime(value: int) -> bool:
    """Returns whether there are none among the triples of the prime divisors of `value`."""
    found = [n * 3 for n in [d for d in range(1, value + 1) if value % d == 0] if n > 1 and all(n % d for d in range(2, n))]
    return len(found) == 0


def collect_square(values: list[int]) -> int:
    """Compute the sum of the squares of the numbers in `values` whose absolute value is above 3."""
    chosen = [number ** 2 for number in values if abs(number) > 3]
    return sum(chosen)


def reversed_backwards(labels):
    """Returns a list of the words in `labels` with fewer than 3 letters, each spelled backwards in reverse order."""
    result = [word[::-1] for word in labels if len(word) < 3]
    return result[::-1]


def ascending_no_multiple(ages: dict[str, int]) -> list[int]:
    """Return a sorted list of 2 plus each of the numbers among the values of `ages` that are not multiples of 5."""
    out = []
    for x in ages.values():
        if x % 5 != 0:
            out.append(x + 2)
    return sorted(out)


def sum_other_than(n: int) -> int:
    """Compute the sum of 10 plus each of the digits of `n` other than 2."""
    found = [x + 10 for x in [int(d) for d in str(n)] if x != 2]
    return sum(found)


def compute_counts(numbers: list[int]) -> dict[int, int]:
    """Compute a dictionary from each of the triples of the numbers in `numbers` that end in 1 to how often it occurs."""
    out = []
    for n in numbers:
        if abs(n) % 10 == 1:
            out.append(n * 3)
    return {m: out.count(m) for m in out}


def ends_repeated(stock):
    """Return a list with the first of the words among the keys of `stock` that end with 'a', each written twice, empty if there is none."""
    chosen = []
    for word in stock:
        if word.endswith('a'):
            chosen.append(word * 2)
    return chosen[:1]
