"""Return values of a reference program, computed by a normal interpreter. Runs as a separate program.

Reads a marshalled (source, entry point, calls, rule) from standard input, where the calls are lists of arguments as
`in_sandbox/calls.py` encodes them; writes a marshalled (expected values, arguments, CPU seconds, fault).
"""

from __future__ import annotations

import io
import marshal
import sys
import time
from collections.abc import Callable
from typing import Any

JUDGED: dict[str, Callable[[Any], Any]] = {"set": set, "not-none": lambda value: value is not None}
"""Rules that judge by something other than the value itself."""


class NotPlain(Exception):
    """A value that has no literal equal to itself."""


def plain(value: Any) -> Any:
    """Return the value with subclasses of plain types converted to plain types."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (set, frozenset)):
        return {plain(item) for item in value}
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def written(value: Any) -> bytes:
    try:
        data = marshal.dumps(plain(value))
    except ValueError:
        raise NotPlain(f"returns a {type(value).__name__} that cannot be written down") from None
    if marshal.loads(data) != value:
        raise NotPlain(f"returns a {type(value).__name__} that does not equal its copy")
    return data


def expected(
    function: Callable[..., Any], given: list[list[Any]], decoded: Callable[[Any], Any], rule: str
) -> list[Any]:
    found = []
    for arguments in given:
        value = function(*(decoded(argument) for argument in arguments))
        if rule in JUDGED:
            value = JUDGED[rule](value)
        found.append(marshal.loads(written(value)))
    return found


def main() -> None:
    answer, sys.stdout = sys.stdout.buffer, io.StringIO()
    source, entry_point, given, rule, decoder = marshal.load(sys.stdin.buffer)
    space: dict[str, Any] = {"__name__": "reference"}
    tools: dict[str, Any] = {"__name__": "calls"}
    exec(decoder, tools)
    values, fault = [], ""
    begun = time.process_time()
    try:
        exec(source, space)
        values = expected(space[entry_point], given, tools["decoded"], rule)
    except NotPlain as error:
        fault = str(error)
    seconds = time.process_time() - begun
    arguments = [[tools["decoded"](argument) for argument in each] for each in given]
    answer.write(marshal.dumps((values, arguments, seconds, fault)))


if __name__ == "__main__":
    main()
