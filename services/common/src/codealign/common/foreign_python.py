"""Parses Python source written by other people and models."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.RLock()
"""`catch_warnings` swaps the filters of the whole process, so two threads would restore each other's filters."""


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Suppress warnings of `ast.parse`, `compile` and `symtable` about the source, such as invalid escapes.

    Errors are raised as usual. Keep only the parsing inside, because other threads wait meanwhile.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
