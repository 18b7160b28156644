# SPDX-License-Identifier: Apache-2.0


def raised_every_other(ages: dict[str, int]) -> list[int]:
    """Gives a list of every second of the numbers among the values of `ages` that are multiples of 5, each at least 0, from the first on."""
    chosen = []
    for n in ages.values():
        if n % 5 == 0:
            chosen.append(max(n, 0))
    return chosen[::2]


def take_last(counts):
    """Return a list with the last of the doubles of the positive numbers among the values of `counts`, empty if there is none."""
    out = [number * 2 for number in counts.values() if number > 0]
    return out[-1:]


def double_counts(number):
    """Compute a dictionary from each of the doubles of the digits of `number` that end in 2 to how often it occurs."""
    chosen = []
    for n in [int(d) for d in str(number)]:
        if abs(n) % 10 == 2:
            chosen.append(n * 2)
    return {m: chosen.count(m) for m in chosen}


def mean_prime(stock: dict[str, int]) -> int:
    """Return the mean of the prime numbers among the values of `stock`, each at least 0, rounded down, or 0 if there are none."""
    kept = [max(number, 0) for number in stock.values() if number > 1 and all(number % d for d in range(2, number))]
    return sum(kept) // len(kept) if kept else 0


def none_positive(number: int) -> bool:
    """Returns whether there are none among the squares of the positive numbers from 1 to `number`."""
    out = [n * n for n in range(1, number + 1) if n > 0]
    return len(out) == 0


def negated_less(value: int) -> list[int]:
    """Return a list of the negatives of the divisors of `value` that are less than 3 without the first."""
    found = [-v for v in [d for d in range(1, value + 1) if value % d == 0] if v < 3]
    return found[1:]


def as_text_any(scores: dict[str, int]) -> bool:
    """Gives whether there are any among the texts of the numbers among the values of `scores` that are less than 6."""
    chosen = [str(v) for v in scores.values() if v < 6]
    return len(chosen) > 0


def no_multiple_triple(size: int) -> int:
    """Gives the mean of the triples of the digits of `size` that are not multiples of 3, rounded down, or 0 if there are none."""
    result = []
    for v in [int(d) for d in str(size)]:
        if v % 3 != 0:
            result.append(3 * v)
    return sum(result) // len(result) if result else 0


def minus_odd(counts):
    """Gives a list with the last of 2 less than each of the odd numbers among the values of `counts`, empty if there is none."""
    out = []
    for x in counts.values():
        if x % 2 != 0:
            out.append(x - 2)
    return out[-1:]


def half_nonzero(numbers: list[int]) -> int:
    """Compute the mean of the halves, rounded down, of the nonzero numbers in `numbers`, rounded down, or 0 if there are none."""
    found = [number // 2 for number in numbers if number != 0]
    return sum(found) // len(found) if found else 0


def none_even_length(labels):
    """Returns whether there are none among the vowel counts of the words in `labels` of even length."""
    found = [sum(c in 'aeiou' for c in s) for s in labels if len(s) % 2 == 0]
    return len(found) == 0


def descending_one_digit(size):
    """Compute a list of the last digits of the divisors of `size` from 0 to 9 from largest to smallest."""
    out = []
    for x in [d for d in range(1, size + 1) if size % d == 0]:
        if 0 <= x <= 9:
            out.append(abs(x) % 10)
    return sorted(out, reverse=True)
