"""nano's seeds: functions of its world as Python files, and some that filters must drop."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from codealign.nano import examples, functions

GOOD = 240
"""Number of functions that pass the filters, near-duplicates aside."""
PER_FILE = 12
REPEATED = 8
"""Number of functions that occur twice in the files."""
_HEADER = "# SPDX-License-Identifier: Apache-2.0\n"
_BROKEN = '''\
def half_written(values):
    """Return the sum of the values."""
    return sum(values
'''
_BAD = (
    '''\
def show_squares(values):
    """Print the squares of the numbers in `values`."""
    for v in values:
        print(v * v)
''',
    '''\
def keep_total(values, totals):
    """Append the sum of the numbers in `values` to `totals`."""
    totals.append(sum(values))
''',
    '''\
def sum_of_odd(values):
    """Return the sum of the odd numbers in `values`."""
    # TODO: what about an empty list?
    return sum(v for v in values if v % 2)
''',
    '''\
def scaled(values):
    """Return a list of the numbers in `values`, each times FACTOR."""
    return [v * FACTOR for v in values]
''',
    '''\
def answer():
    """Return the number of everything."""
    return 42
''',
    '''\
def file_names(text):
    """Return a list of the words in the text `text` that name a file."""
    import os

    return [w for w in text.split() if os.path.exists(w)]
''',
    """\
def without_words(values):
    return sum(values)
""",
)


def write_seeds(seed: int, benchmark: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the texts of the seed files by name.

    Args:
        seed: Determines the files.
        benchmark: The evaluation's tasks; two of them are planted among the seeds, to be found and dropped.
    """
    dice = random.Random(f"seeds {seed}")  # noqa: S311 - not used for secrets
    written: list[str] = []
    seen: set[str] = set()
    while len(written) < GOOD:
        composition = functions.draw(dice)
        names = functions.draw_names(dice, composition)
        if composition.key in seen or names.function in seen:
            continue
        seen |= {composition.key, names.function}
        written.append(examples.write_function(dice, composition, names) + "\n")
    pages = [written[start : start + PER_FILE] for start in range(0, GOOD, PER_FILE)]
    pages.append(dice.sample(written, REPEATED))
    pages.append([task["prompt"] + task["canonical_solution"] for task in benchmark[:2]])
    pages.append(list(_BAD))
    files = {f"part_{number:02}.py": _HEADER + "\n\n" + "\n\n".join(page) for number, page in enumerate(pages)}
    return {**files, "unreadable.py": _HEADER + "\n\n" + _BROKEN}
