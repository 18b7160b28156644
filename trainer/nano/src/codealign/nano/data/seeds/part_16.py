# SPDX-License-Identifier: Apache-2.0


def even_length_length(names: list[str]) -> list[int]:
    """Gives a list of the lengths of the words in `names` of even length without the first."""
    chosen = [len(s) for s in names if len(s) % 2 == 0]
    return chosen[1:]


def get_sum(n: int) -> int:
    """Gives the sum of the numbers from 1 to `n` whose absolute value is above 3, each at most 3."""
    result = [min(x, 3) for x in range(1, n + 1) if abs(x) > 3]
    return sum(result)


def length_counts(line: str) -> dict[int, int]:
    """Gives a dictionary from each of the lengths of the words in the text `line` with at least 3 letters to how often it occurs."""
    found = []
    for word in line.split():
        if len(word) >= 3:
            found.append(len(word))
    return {m: found.count(m) for m in found}


def collect_nonzero(nums: list[int]) -> list[int]:
    """Compute a list of the absolute values of the nonzero numbers in `nums` without the first."""
    chosen = [abs(number) for number in nums if number != 0]
    return chosen[1:]


def take_size(counts):
    """Compute the number of the last letters of the words among the keys of `counts` that start with 's'."""
    kept = [s[-1] for s in counts if s.startswith('s')]
    return len(kept)


def positive_plus(size):
    """Compute the largest of 1 plus each of the positive numbers from 1 to `size`, or 0 if there are none."""
    result = [number + 1 for number in range(1, size + 1) if number > 0]
    return max(result, default=0)


def backwards_first(parts):
    """Return a list of the first letters of the words in `parts` that start with 'b' in reverse order."""
    result = [s[0] for s in parts if s.startswith('b')]
    return result[::-1]


def cube_greater(size):
    """Compute a sorted list of the distinct values of the cubes of the digits of `size` that are greater than 2."""
    result = [v ** 3 for v in [int(d) for d in str(size)] if v > 2]
    return sorted(set(result))


def other_than_raised(n):
    """Return a list with the first of the divisors of `n` other than 5, each at least 2, empty if there is none."""
    chosen = []
    for v in [d for d in range(1, n + 1) if n % d == 0]:
        if v != 5:
            chosen.append(max(v, 2))
    return chosen[:1]


def no_multiple_minus(values: list[int]) -> int:
    """Compute the largest minus the smallest of 10 less than each of the numbers in `values` that are not multiples of 5, or 0 if there are none."""
    chosen = [number - 10 for number in values if number % 5 != 0]
    return max(chosen, default=0) - min(chosen, default=0)


def one_digit_last(value):
    """Return a list with the last of the divisors of `value` from 0 to 9, each at most 3, empty if there is none."""
    kept = [min(v, 3) for v in [d for d in range(1, value + 1) if value % d == 0] if 0 <= v <= 9]
    return kept[-1:]


def get_half(counts):
    """Compute the sum of the halves, rounded down, of the prime numbers among the values of `counts`."""
    found = [n // 2 for n in counts.values() if n > 1 and all(n % d for d in range(2, n))]
    return sum(found)
