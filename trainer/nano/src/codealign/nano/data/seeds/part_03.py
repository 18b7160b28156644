# SPDX-License-Identifier: Apache-2.0


def every_other_long_enough(line: str) -> list[str]:
    """Compute a list of every second of the words in the text `line` with at least 3 letters in uppercase, from the first on."""
    result = []
    for s in line.split():
        if len(s) >= 3:
            result.append(s.upper())
    return result[::2]


def take_triple(values):
    """Returns how many distinct values are among the triples of the numbers in `values`."""
    kept = [number * 3 for number in values]
    return len(set(kept))


def greater_absolute(numbers):
    """Compute a list of the absolute values of the numbers in `numbers` that are greater than 4 without the first."""
    found = [abs(v) for v in numbers if v > 4]
    return found[1:]


def remainder_first(size):
    """Compute a list with the first of the remainders by 5 of the numbers from 1 to `size` that are less than 3, empty if there is none."""
    chosen = [x % 5 for x in range(1, size + 1) if x < 3]
    return chosen[:1]


def distinct_count_square(size):
    """Compute how many distinct values are among the squares of the prime divisors of `size`."""
    kept = []
    for n in [d for d in range(1, size + 1) if size % d == 0]:
        if n > 1 and all(n % d for d in range(2, n)):
            kept.append(n * n)
    return len(set(kept))


def descending_odd(nums):
    """Gives a list of the cubes of the odd numbers in `nums` from largest to smallest."""
    chosen = []
    for v in nums:
        if v % 2 != 0:
            chosen.append(v ** 3)
    return sorted(chosen, reverse=True)


def positive_none(number: int) -> bool:
    """Return whether there are none among the absolute values of the positive digits of `number`."""
    result = [abs(n) for n in [int(d) for d in str(number)] if n > 0]
    return len(result) == 0


def descending_positive(prices):
    """Returns a list of the triples of the positive numbers among the values of `prices` from largest to smallest."""
    kept = [3 * x for x in prices.values() if x > 0]
    return sorted(kept, reverse=True)


def ends_in_any(numbers: list[int]) -> bool:
    """Returns whether there are any among the remainders by 4 of the numbers in `numbers` that end in 1."""
    out = []
    for x in numbers:
        if abs(x) % 10 == 1:
            out.append(x % 4)
    return len(out) > 0


def collect_half(number):
    """Returns a dictionary from each of the halves, rounded down, of the negative numbers from 1 to `number` to how often it occurs."""
    result = []
    for x in range(1, number + 1):
        if x < 0:
            result.append(x // 2)
    return {m: result.count(m) for m in result}


def less_capped(ages: dict[str, int]) -> int:
    """Gives how many distinct values are among the numbers among the values of `ages` that are less than 3, each at most 5."""
    result = []
    for x in ages.values():
        if x < 3:
            result.append(min(x, 5))
    return len(set(result))


def none_far_from_zero(stock):
    """Gives whether there are none among 1 plus each of the numbers among the values of `stock` whose absolute value is above 3."""
    out = [x + 1 for x in stock.values() if abs(x) > 3]
    return len(out) == 0
