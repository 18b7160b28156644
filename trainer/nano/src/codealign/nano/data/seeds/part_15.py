# SPDX-License-Identifier: Apache-2.0


def upper_last(message):
    """Compute a list with the last of the words in the text `message` that start with a capital in uppercase, empty if there is none."""
    result = [w.upper() for w in message.split() if w[0].isupper()]
    return result[-1:]


def compute_triple(limit):
    """Compute a list of every second of the triples of the digits of `limit` that are at least 4, from the first on."""
    kept = [3 * v for v in [int(d) for d in str(limit)] if v >= 4]
    return kept[::2]


def capitalize_counts(text: str) -> dict[str, int]:
    """Gives a dictionary from each of the words in the text `text` with at most 5 letters, each capitalized to how often it occurs."""
    result = [w.capitalize() for w in text.split() if len(w) <= 5]
    return {m: result.count(m) for m in result}


def compute_capitalized(text):
    """Gives a dictionary from each of the words in the text `text` that start with a capital, each followed by '!' to how often it occurs."""
    result = []
    for word in text.split():
        if word[0].isupper():
            result.append(word + '!')
    return {m: result.count(m) for m in result}


def take_positive(ages: dict[str, int]) -> int:
    """Compute the largest minus the smallest of 10 times each of the positive numbers among the values of `ages`, or 0 if there are none."""
    kept = [n * 10 for n in ages.values() if n > 0]
    return max(kept, default=0) - min(kept, default=0)


def minus_at_most(size):
    """Gives the mean of 1 less than each of the divisors of `size` that are at most 6, rounded down, or 0 if there are none."""
    kept = []
    for x in [d for d in range(1, size + 1) if size % d == 0]:
        if x <= 6:
            kept.append(x - 1)
    return sum(kept) // len(kept) if kept else 0


def nonzero_minus(data):
    """Returns a list of every second of 10 less than each of the nonzero numbers in `data`, from the first on."""
    result = [x - 10 for x in data if x != 0]
    return result[::2]


def largest_last_digit(limit: int) -> int:
    """Compute the largest of the last digits of the negative divisors of `limit`, or 0 if there are none."""
    kept = [abs(n) % 10 for n in [d for d in range(1, limit + 1) if limit % d == 0] if n < 0]
    return max(kept, default=0)


def multiple_negated(counts):
    """Returns the sum of the negatives of the numbers among the values of `counts` that are multiples of 3."""
    kept = [-number for number in counts.values() if number % 3 == 0]
    return sum(kept)


def take_capped(size: int) -> bool:
    """Gives whether there are any among the digits of `size` whose absolute value is above 3, each at most 3."""
    chosen = [min(number, 3) for number in [int(d) for d in str(size)] if abs(number) > 3]
    return len(chosen) > 0


def none_triple(size):
    """Gives whether there are none among the triples of the digits of `size`."""
    kept = [x * 3 for x in [int(d) for d in str(size)]]
    return len(kept) == 0


def get_every_other(size: int) -> list[int]:
    """Compute a list of every second of the doubles of the digits of `size` that end in 5, from the first on."""
    kept = []
    for number in [int(d) for d in str(size)]:
        if abs(number) % 10 == 5:
            kept.append(2 * number)
    return kept[::2]
