# SPDX-License-Identifier: Apache-2.0


def none_plus(numbers):
    """Gives whether there are none among 10 plus each of the nonzero numbers in `numbers`."""
    out = []
    for n in numbers:
        if n != 0:
            out.append(n + 10)
    return len(out) == 0


def make_distinct_count(limit: int) -> int:
    """Compute how many distinct values are among the absolute values of the digits of `limit`."""
    kept = [abs(x) for x in [int(d) for d in str(limit)]]
    return len(set(kept))


def collect_cube(counts: dict[str, int]) -> int:
    """Returns the sum of the cubes of the odd numbers among the values of `counts`."""
    out = [x ** 3 for x in counts.values() if x % 2 == 1]
    return sum(out)


def make_double(limit: int) -> dict[int, int]:
    """Compute a dictionary from each of the doubles of the divisors of `limit` whose absolute value is above 3 to how often it occurs."""
    result = []
    for v in [d for d in range(1, limit + 1) if limit % d == 0]:
        if abs(v) > 3:
            result.append(v * 2)
    return {m: result.count(m) for m in result}


def longer_list(labels):
    """Gives a list of the words in `labels` with more than 3 letters, each followed by '!'."""
    out = []
    for word in labels:
        if len(word) > 3:
            out.append(word + '!')
    return out


def other_than_first(limit):
    """Gives a list with the first of the triples of the divisors of `limit` other than 2, empty if there is none."""
    kept = []
    for v in [d for d in range(1, limit + 1) if limit % d == 0]:
        if v != 2:
            kept.append(v * 3)
    return kept[:1]


def as_text_nonzero(numbers: list[int]) -> bool:
    """Compute whether there are none among the texts of the nonzero numbers in `numbers`."""
    chosen = []
    for n in numbers:
        if n != 0:
            chosen.append(str(n))
    return len(chosen) == 0


def find_negated(size: int) -> int:
    """Gives the largest of the negatives of the divisors of `size` that are at most 3, or 0 if there are none."""
    out = []
    for number in [d for d in range(1, size + 1) if size % d == 0]:
        if number <= 3:
            out.append(-number)
    return max(out, default=0)


def capitalized_list(stock: dict[str, int]) -> list[str]:
    """Returns a list of the words among the keys of `stock` that start with a capital, each written twice."""
    kept = []
    for w in stock:
        if w[0].isupper():
            kept.append(w * 2)
    return kept


def collect_mean(values: list[int]) -> int:
    """Return the mean of the triples of the positive numbers in `values`, rounded down, or 0 if there are none."""
    kept = []
    for v in values:
        if v > 0:
            kept.append(3 * v)
    return sum(kept) // len(kept) if kept else 0


def remainder_every_other(size: int) -> list[int]:
    """Compute a list of every second of the remainders by 4 of the divisors of `size`, from the first on."""
    out = [number % 4 for number in [d for d in range(1, size + 1) if size % d == 0]]
    return out[::2]


def running_times(value):
    """Gives the running totals of 5 times each of the odd numbers from 1 to `value`."""
    out = [n * 5 for n in range(1, value + 1) if n % 2 != 0]
    return [sum(out[:i + 1]) for i in range(len(out))]
