# SPDX-License-Identifier: Apache-2.0


def multiple_last_digit(value):
    """Return the product of the last digits of the divisors of `value` that are multiples of 3, or 1 if there are none."""
    result = []
    for n in [d for d in range(1, value + 1) if value % d == 0]:
        if n % 3 == 0:
            result.append(abs(n) % 10)
    total = 1
    for m in result:
        total *= m
    return total


def last_longer(tags: list[str]) -> list[str]:
    """Gives a list with the last of the words in `tags` with more than 2 letters, each capitalized, empty if there is none."""
    chosen = [word.capitalize() for word in tags if len(word) > 2]
    return chosen[-1:]


def collect_at_most(data):
    """Compute the largest of 3 less than each of the numbers in `data` that are at most 5, or 0 if there are none."""
    out = []
    for v in data:
        if v <= 5:
            out.append(v - 3)
    return max(out, default=0)


def find_negative(scores):
    """Return a list of every second of the absolute values of the negative numbers among the values of `scores`, from the first on."""
    chosen = [abs(v) for v in scores.values() if v < 0]
    return chosen[::2]


def even_running(prices: dict[str, int]) -> list[int]:
    """Returns the running totals of the negatives of the even numbers among the values of `prices`."""
    result = []
    for n in prices.values():
        if n % 2 == 0:
            result.append(-n)
    return [sum(result[:i + 1]) for i in range(len(result))]


def triple_running(limit):
    """Return the running totals of the triples of the digits of `limit` that are greater than 3."""
    chosen = []
    for n in [int(d) for d in str(limit)]:
        if n > 3:
            chosen.append(3 * n)
    return [sum(chosen[:i + 1]) for i in range(len(chosen))]


def minus_spread(values: list[int]) -> int:
    """Return the largest minus the smallest of 10 less than each of the even numbers in `values`, or 0 if there are none."""
    result = [v - 10 for v in values if v % 2 == 0]
    return max(result, default=0) - min(result, default=0)


def long_enough_first_few(title):
    """Return a list of the first 2 of the first letters of the words in the text `title` with at least 5 letters."""
    out = []
    for word in title.split():
        if len(word) >= 5:
            out.append(word[0])
    return out[:2]


def backwards_positive(number: int) -> list[int]:
    """Return a list of the cubes of the positive divisors of `number` in reverse order."""
    chosen = [n ** 3 for n in [d for d in range(1, number + 1) if number % d == 0] if n > 0]
    return chosen[::-1]


def no_multiple_none(number: int) -> bool:
    """Returns whether there are none among 2 plus each of the digits of `number` that are not multiples of 4."""
    found = [n + 2 for n in [int(d) for d in str(number)] if n % 4 != 0]
    return len(found) == 0


def take_any(limit: int) -> bool:
    """Return whether there are any among 4 times each of the nonzero digits of `limit`."""
    found = []
    for v in [int(d) for d in str(limit)]:
        if v != 0:
            found.append(v * 4)
    return len(found) > 0


def counts_plus(nums: list[int]) -> dict[int, int]:
    """Gives a dictionary from each of 1 plus each of the numbers in `nums` that end in 2 to how often it occurs."""
    out = [x + 1 for x in nums if abs(x) % 10 == 2]
    return {m: out.count(m) for m in out}
