"""Programs of ours as the tests of a program in the sandbox.

Their sources are in `in_sandbox/`. There they import each other; in the sandbox they are executed in one namespace, so
their imports of each other are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

from codealign.coordinator.reading.compact import compact

_SOURCES = "codealign.coordinator.agreement.in_sandbox"
_TESTS = """\
{comment}import builtins as _codealign_builtins
_codealign_space = {{"__name__": "codealign.observing"}}
for _codealign_part in {parts}:
    _codealign_builtins.exec(_codealign_builtins.bytes.fromhex(_codealign_part).decode(), _codealign_space)
for _codealign_written in _codealign_space["{function}"](_codealign_builtins.globals(), "{asked}"):
    assert _codealign_written
"""
PREFIX = "_codealign"
"""Names that begin so are ours."""


def part(name: str) -> str:
    """Return one of our sources as it is sent."""
    source = (files(_SOURCES) / f"{name}.py").read_text(encoding="utf-8")
    return compact("\n".join(line for line in source.splitlines() if not line.startswith(f"from {_SOURCES}.")))


def driver(parts: Sequence[str], function: str, asked: Mapping[str, object], comment: str = "") -> str:
    """Return tests that execute our sources and iterate over what a function of theirs yields.

    Args:
        parts: The sources, as `part` returns them.
        function: Its name. It is called with the globals of the tests and what is asked, as JSON in hexadecimal.
        asked: What is asked.
        comment: A line before all others. The sandbox chooses what it prepares by the words in a program's text.
    """
    hidden = json.dumps(asked).encode().hex()
    line = f"# {comment}\n" if comment else ""
    return _TESTS.format(comment=line, parts=json.dumps(list(parts)), function=function, asked=hidden)
