# SPDX-License-Identifier: Apache-2.0


def take_lacks(phrase):
    """Compute a list of the words in the text `phrase` without 'e'."""
    result = [word for word in phrase.split() if 'e' not in word]
    return result


def last_absolute(limit: int) -> list[int]:
    """Return a list with the last of the absolute values of the digits of `limit` that are at least 2, empty if there is none."""
    kept = [abs(x) for x in [int(d) for d in str(limit)] if x >= 2]
    return kept[-1:]


def get_negative(limit: int) -> list[int]:
    """Compute a list with the first of the negatives of the negative numbers from 1 to `limit`, empty if there is none."""
    out = []
    for n in range(1, limit + 1):
        if n < 0:
            out.append(-n)
    return out[:1]


def collect_joined(stock):
    """Compute the texts of the odd numbers among the values of `stock` joined by '-'."""
    found = [str(v) for v in stock.values() if v % 2 == 1]
    return '-'.join(found)


def collect_backwards(data: list[int]) -> list[int]:
    """Gives a list of the triples of the numbers in `data` whose absolute value is above 3 in reverse order."""
    kept = [3 * v for v in data if abs(v) > 3]
    return kept[::-1]


def at_least_product(n: int) -> int:
    """Returns the product of the absolute values of the divisors of `n` that are at least 5, or 1 if there are none."""
    result = [abs(x) for x in [d for d in range(1, n + 1) if n % d == 0] if x >= 5]
    total = 1
    for m in result:
        total *= m
    return total


def distinct_at_most(n: int) -> list[int]:
    """Compute a sorted list of the distinct values of the triples of the divisors of `n` that are at most 6."""
    out = [3 * x for x in [d for d in range(1, n + 1) if n % d == 0] if x <= 6]
    return sorted(set(out))


def last_digit_nonzero(number: int) -> int:
    """Compute the mean of the last digits of the nonzero digits of `number`, rounded down, or 0 if there are none."""
    found = []
    for v in [int(d) for d in str(number)]:
        if v != 0:
            found.append(abs(v) % 10)
    return sum(found) // len(found) if found else 0


def raised_negative(values):
    """Gives a sorted list of the distinct values of the negative numbers in `values`, each at least 2."""
    result = [max(v, 2) for v in values if v < 0]
    return sorted(set(result))


def collect_negative(value: int) -> bool:
    """Return whether there are none among the remainders by 4 of the negative numbers from 1 to `value`."""
    chosen = [number % 4 for number in range(1, value + 1) if number < 0]
    return len(chosen) == 0


def no_multiple_absolute(size: int) -> dict[int, int]:
    """Returns a dictionary from each of the absolute values of the divisors of `size` that are not multiples of 3 to how often it occurs."""
    out = [abs(number) for number in [d for d in range(1, size + 1) if size % d == 0] if number % 3 != 0]
    return {m: out.count(m) for m in out}


def get_marked(prices: dict[str, int]) -> list[str]:
    """Gives a list with the first of the words among the keys of `prices` without 'o', each followed by '!', empty if there is none."""
    out = [w + '!' for w in prices if 'o' not in w]
    return out[:1]
