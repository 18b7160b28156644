# SPDX-License-Identifier: Apache-2.0


def show_squares(values):
    """Print the squares of the numbers in `values`."""
    for v in values:
        print(v * v)


def keep_total(values, totals):
    """Append the sum of the numbers in `values` to `totals`."""
    totals.append(sum(values))


def sum_of_odd(values):
    """Return the sum of the odd numbers in `values`."""
    # TODO: what about an empty list?
    return sum(v for v in values if v % 2)


def scaled(values):
    """Return a list of the numbers in `values`, each times FACTOR."""
    return [v * FACTOR for v in values]


def answer():
    """Return the number of everything."""
    return 42


def file_names(text):
    """Return a list of the words in the text `text` that name a file."""
    import os

    return [w for w in text.split() if os.path.exists(w)]


def without_words(values):
    return sum(values)
