# SPDX-License-Identifier: Apache-2.0


def upper_last(message):
    """Compute a list with the last of the words in the text `message` that start with a capital in uppercase, empty if there is none."""
    result = [w.upper() for w in message.split() if w[0].isupper()]
    return result[-1:]


def nonzero_last(prices: dict[str, int]) -> list[int]:
    """Gives a list with the last of the nonzero numbers among the values of `prices`, empty if there is none."""
    chosen = []
    for v in prices.values():
        if v != 0:
            chosen.append(v)
    return chosen[-1:]


def compute_capitalized(text):
    """Gives a dictionary from each of the words in the text `text` that start with a capital, each followed by '!' to how often it occurs."""
    result = []
    for word in text.split():
        if word[0].isupper():
            result.append(word + '!')
    return {m: result.count(m) for m in result}


def no_multiple_none(number: int) -> bool:
    """Returns whether there are none among 2 plus each of the digits of `number` that are not multiples of 4."""
    found = [n + 2 for n in [int(d) for d in str(number)] if n % 4 != 0]
    return len(found) == 0


def long_enough_first_few(title):
    """Return a list of the first 2 of the first letters of the words in the text `title` with at least 5 letters."""
    out = []
    for word in title.split():
        if len(word) >= 5:
            out.append(word[0])
    return out[:2]


def remainder_first(size):
    """Compute a list with the first of the remainders by 5 of the numbers from 1 to `size` that are less than 3, empty if there is none."""
    chosen = [x % 5 for x in range(1, size + 1) if x < 3]
    return chosen[:1]


def at_least_product(n: int) -> int:
    """Returns the product of the absolute values of the divisors of `n` that are at least 5, or 1 if there are none."""
    result = [abs(x) for x in [d for d in range(1, n + 1) if n % d == 0] if x >= 5]
    total = 1
    for m in result:
        total *= m
    return total


def compute_triple(limit):
    """Compute a list of every second of the triples of the digits of `limit` that are at least 4, from the first on."""
    kept = [3 * v for v in [int(d) for d in str(limit)] if v >= 4]
    return kept[::2]
