"""Python source that other people and models wrote."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.RLock()
"""`catch_warnings` swaps the filters of the whole process, so two threads would restore each other's."""


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Inside, `ast.parse`, `compile` and `symtable` give no warning of what is in the source, invalid escapes say.

    Errors are raised as ever. Only what parses belongs inside: another thread waits meanwhile.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
