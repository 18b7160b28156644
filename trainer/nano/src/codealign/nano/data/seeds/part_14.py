# SPDX-License-Identifier: Apache-2.0


def get_list(size):
    """Compute a list of the even digits of `size`."""
    out = [x for x in [int(d) for d in str(size)] if x % 2 == 0]
    return out


def shorter_reversed(names):
    """Gives a list of the first 3 of the words in `names` with fewer than 5 letters, each spelled backwards."""
    found = [w[::-1] for w in names if len(w) < 5]
    return found[:3]


def backwards_negative(number):
    """Returns a list of the halves, rounded down, of the negative divisors of `number` in reverse order."""
    found = [n // 2 for n in [d for d in range(1, number + 1) if number % d == 0] if n < 0]
    return found[::-1]


def collect_every_other(value: int) -> list[int]:
    """Returns a list of every second of 1 plus each of the nonzero numbers from 1 to `value`, from the first on."""
    kept = [number + 1 for number in range(1, value + 1) if number != 0]
    return kept[::2]


def even_square(limit: int) -> int:
    """Return the smallest of the squares of the even digits of `limit`, or 0 if there are none."""
    out = []
    for v in [int(d) for d in str(limit)]:
        if v % 2 == 0:
            out.append(v ** 2)
    return min(out, default=0)


def collect_last_digit(numbers: list[int]) -> list[int]:
    """Gives a list with the last of the last digits of the numbers in `numbers` that end in 2, empty if there is none."""
    chosen = []
    for number in numbers:
        if abs(number) % 10 == 2:
            chosen.append(abs(number) % 10)
    return chosen[-1:]


def get_cube(number):
    """Compute a list of the cubes of the positive divisors of `number` from largest to smallest."""
    chosen = [n ** 3 for n in [d for d in range(1, number + 1) if number % d == 0] if n > 0]
    return sorted(chosen, reverse=True)


def counts_marked(words: list[str]) -> dict[str, int]:
    """Return a dictionary from each of the words in `words` that end with 'e', each followed by '!' to how often it occurs."""
    out = []
    for w in words:
        if w.endswith('e'):
            out.append(w + '!')
    return {m: out.count(m) for m in out}


def take_distinct_count(message):
    """Return how many distinct values are among the words in the text `message` with more than 2 letters, each written twice."""
    result = []
    for word in message.split():
        if len(word) > 2:
            result.append(word * 2)
    return len(set(result))


def greater_triple(size: int) -> list[int]:
    """Compute a list of every second of the triples of the numbers from 1 to `size` that are greater than 3, from the first on."""
    found = [3 * x for x in range(1, size + 1) if x > 3]
    return found[::2]


def make_smallest(size: int) -> int:
    """Compute the smallest of the cubes of the numbers from 1 to `size` that are at least 5, or 0 if there are none."""
    chosen = [x ** 3 for x in range(1, size + 1) if x >= 5]
    return min(chosen, default=0)


def distinct_count_at_least(limit: int) -> int:
    """Gives how many distinct values are among the triples of the digits of `limit` that are at least 2."""
    result = [v * 3 for v in [int(d) for d in str(limit)] if v >= 2]
    return len(set(result))
