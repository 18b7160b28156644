"""A program's sources as Python sees them: their lines, and the file that `__file__` names.

Imports as little as possible, from the standard library only; see `instrument`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection

FOLDER = "/box/work"
"""Working directory of every program."""
PATH = f"{FOLDER}/solution.py"
"""Value of `__file__` and `sys.argv[0]`, unless the request contains a file with this name."""
_MARK = "\ufeff"
"""A byte-order mark. Python skips it at the start of a file, but `compile` does not."""
_LEADING_TO_THE_FILE = (
    r"__file__|__loader__|__spec__|argv|filename|get(?:source)?file|linecache|multiprocessing|reload|runpy|solution\.py"
    # Also match in the text of a module that the program writes, after an escaped line end, and `-m solution`.
    r"|(?:\b|\\[nr])(?:from|import)\b[\w ,.]{1,80}\bsolution\b|-m\W{1,9}solution\b"
)
"""A program that contains none of these cannot find the path of its own source."""


def without_mark(source: str) -> str:
    """Return the source without a leading byte-order mark."""
    return source.removeprefix(_MARK)


def lines(source: str) -> list[str]:
    r"""Return the lines of a source as Python counts them, with their ends: only \n, \r\n and \r end a line."""
    return io.StringIO(without_mark(source), newline=None).readlines()


def path_beside(files: Collection[str]) -> str:
    """Return the path of a program's own source.

    Args:
        files: Paths of the request's files, relative to the working directory. None of them is overwritten.
    """
    taken = {path.partition("/")[0] for path in files}
    folder, _, name = PATH.rpartition("/")
    while name in taken:
        name = f"_{name}"
    return f"{folder}/{name}"


def needs_file(*sources: str) -> bool:
    """Return whether a program can tell that its source is a file.

    If it cannot, no file is written. This saves time, and a directory listing contains only what the program created.
    """
    return any(re.search(_LEADING_TO_THE_FILE, source) for source in sources)
