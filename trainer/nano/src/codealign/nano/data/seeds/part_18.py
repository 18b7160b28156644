# SPDX-License-Identifier: Apache-2.0


def size_triple(limit: int) -> int:
    """Returns the number of the triples of the digits of `limit` that are at least 2."""
    kept = [3 * v for v in [int(d) for d in str(limit)] if v >= 2]
    return len(kept)


def collect_capped(value):
    """Returns a list of the odd digits of `value`, each at most 5 from largest to smallest."""
    chosen = []
    for x in [int(d) for d in str(value)]:
        if x % 2 == 1:
            chosen.append(min(x, 5))
    return sorted(chosen, reverse=True)


def collect_shortest(number):
    """Compute the shortest of the texts of the negative digits of `number`, or '' if there are none."""
    chosen = [str(v) for v in [int(d) for d in str(number)] if v < 0]
    return min(chosen, key=len, default='')


def other_than_descending(nums):
    """Gives a list of the negatives of the numbers in `nums` other than 2 from largest to smallest."""
    result = []
    for v in nums:
        if v != 2:
            result.append(-v)
    return sorted(result, reverse=True)


def find_without_first(ages):
    """Gives a list of the doubles of the numbers among the values of `ages` from 0 to 9 without the first."""
    kept = []
    for v in ages.values():
        if 0 <= v <= 9:
            kept.append(2 * v)
    return kept[1:]


def running_square(prices: dict[str, int]) -> list[int]:
    """Returns the running totals of the squares of the numbers among the values of `prices` that are greater than 2."""
    result = [x ** 2 for x in prices.values() if x > 2]
    return [sum(result[:i + 1]) for i in range(len(result))]


def backwards_shorter(message: str) -> list[str]:
    """Return a list of the words in the text `message` with fewer than 4 letters in reverse order."""
    out = []
    for s in message.split():
        if len(s) < 4:
            out.append(s)
    return out[::-1]


def take_as_text(n: int) -> list[str]:
    """Compute a list of the texts of the numbers from 1 to `n` whose absolute value is above 3 from largest to smallest."""
    kept = []
    for number in range(1, n + 1):
        if abs(number) > 3:
            kept.append(str(number))
    return sorted(kept, reverse=True)


def make_at_least(values: list[int]) -> list[int]:
    """Return the running totals of the numbers in `values` that are at least 2, each at least 0."""
    chosen = []
    for number in values:
        if number >= 2:
            chosen.append(max(number, 0))
    return [sum(chosen[:i + 1]) for i in range(len(chosen))]


def reversed_longer(words: list[str]) -> list[str]:
    """Gives a list of the words in `words` with more than 2 letters, each spelled backwards from largest to smallest."""
    found = []
    for word in words:
        if len(word) > 2:
            found.append(word[::-1])
    return sorted(found, reverse=True)


def smallest_triple(size):
    """Returns the smallest of the triples of the numbers from 1 to `size` that are greater than 5, or 0 if there are none."""
    found = []
    for x in range(1, size + 1):
        if x > 5:
            found.append(3 * x)
    return min(found, default=0)


def far_from_zero_absolute(values: list[int]) -> int:
    """Compute how many distinct values are among the absolute values of the numbers in `values` whose absolute value is above 3."""
    found = [abs(n) for n in values if abs(n) > 3]
    return len(set(found))
