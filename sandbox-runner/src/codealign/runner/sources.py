"""A program's sources as Python sees them: their lines, and the file that `__file__` names.

Standard library only, and little of it: see `instrument`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection

FOLDER = "/box/work"
"""The working directory of every program."""
PATH = f"{FOLDER}/solution.py"
"""What `__file__` and `sys.argv[0]` say, unless the request brings a file of that name."""
_MARK = "\ufeff"
"""A byte-order mark; Python skips it at the start of a file, and `compile` does not."""
_LEADING_TO_THE_FILE = (
    r"__file__|__loader__|__spec__|argv|filename|get(?:source)?file|linecache|multiprocessing|reload|runpy|solution\.py"
    # Also in the text of a module that the program writes, after an escaped line end; and `-m solution`.
    r"|(?:\b|\\[nr])(?:from|import)\b[\w ,.]{1,80}\bsolution\b|-m\W{1,9}solution\b"
)
"""A program that holds none of these has no way to the path of its own source."""


def without_mark(source: str) -> str:
    """The source without a byte-order mark at its start."""
    return source.removeprefix(_MARK)


def lines(source: str) -> list[str]:
    r"""The lines that Python counts in a source, each with its end: they end at \n, \r\n and \r alone."""
    return io.StringIO(without_mark(source), newline=None).readlines()


def path_beside(files: Collection[str]) -> str:
    """Where a program's own source is.

    Args:
        files: Paths of the request's files, relative to the working directory. None of them is overwritten.
    """
    taken = {path.partition("/")[0] for path in files}
    folder, _, name = PATH.rpartition("/")
    while name in taken:
        name = f"_{name}"
    return f"{folder}/{name}"


def needs_file(*sources: str) -> bool:
    """Whether a program can tell that its source is a file.

    Where it cannot, none is written: that saves time, and a folder that the program lists holds what the program put
    there.
    """
    return any(re.search(_LEADING_TO_THE_FILE, source) for source in sources)
