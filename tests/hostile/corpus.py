"""The hostile corpus: what each program tries, and its only right verdict.

A program is a file of its own in `programs/<category>/`. Its header is the comment that it begins with:

    # tries: what it tries, in one line
    # verdict: TIMED_OUT
    # limits: wall_seconds=0.5 processes=8

`verdict` names one verdict; two of them, "A or B", only where both are honest and the contract leaves open which. What
else a header may say: `runs`, `stdin` and `expected` (expected output), both as Python literals; `after`, the program
that has just run before it in the same place; `beside`, the program that runs meanwhile; `open`, why the verdict is
not always the right one yet. `# --- tests ---` divides the code from the tests; without it the tests are
`assert True`, and with `# tests: none` there are none.

Sources that no text file should hold come from `sources`.
"""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

PROGRAMS = Path(__file__).parent / "programs"
DIVIDER = "# --- tests ---\n"
_NAMES = (value.name.removeprefix("VERDICT_") for value in pb.Verdict.DESCRIPTOR.values)
VERDICTS = frozenset(_NAMES) - {"UNSPECIFIED", "INFRASTRUCTURE"}
_LIMITS = frozenset(field.name for field in pb.Limits.DESCRIPTOR.fields)


@dataclasses.dataclass(frozen=True)
class Case:
    """One program and its expected result."""

    name: str
    tries: str
    verdicts: tuple[str, ...]
    code: str
    tests: str = "assert True"
    limits: dict[str, float] = dataclasses.field(default_factory=dict)
    runs: int = 0
    stdin: bytes = b""
    expected: str | None = None
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    after: str = ""
    beside: str = ""
    open: str = ""

    @property
    def category(self) -> str:
        return self.name.partition("/")[0]

    def request(self, request_id: str = "") -> pb.ExecuteRequest:
        program = pb.Program(code=self.code, tests=self.tests, stdin=self.stdin)
        if self.expected is not None:
            program.expected_output = self.expected
        for path, content in self.files.items():
            program.files.add(path=path, content=content)
        limits = pb.Limits(**self.limits)  # type: ignore[arg-type]
        return pb.ExecuteRequest(program=program, limits=limits, runs=self.runs, request_id=request_id)


class IncompleteHeader(Exception):
    """A header is invalid; the message names the file and the fault."""


def _header(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        key, colon, value = line[2:].partition(": ")
        if not colon or key in found:
            raise IncompleteHeader(f"not a line of a header: {line!r}")
        found[key] = value.strip()
    return found


def _limits(text: str) -> dict[str, float]:
    pairs = [pair.partition("=") for pair in text.split()]
    wrong = {name for name, _, _ in pairs} - _LIMITS
    if wrong:
        raise IncompleteHeader(f"unknown limits: {', '.join(sorted(wrong))}")
    return {name: float(value) if name.endswith("_seconds") else int(value) for name, _, value in pairs}


def parse(name: str, text: str) -> Case:
    """Parse a program's file.

    Raises:
        IncompleteHeader: The header is incomplete or has unknown keys.
    """
    header = _header(text)
    try:
        given: dict[str, Any] = {"tries": header.pop("tries"), "verdicts": tuple(header.pop("verdict").split(" or "))}
    except KeyError as missing:
        raise IncompleteHeader(f"{name}: no line {missing}") from None
    unknown = set(given["verdicts"]) - VERDICTS
    if unknown or not given["tries"]:
        raise IncompleteHeader(f"{name}: {', '.join(unknown) or 'its purpose'} is not a verdict, or says nothing")
    code, divider, tests = text.partition(DIVIDER)
    if divider:
        given["tests"] = tests
    for key, value in header.items():
        match key:
            case "limits":
                given[key] = _limits(value)
            case "tests" if value == "none" and not divider:
                given[key] = ""
            case "runs" | "stdin" | "expected":
                given[key] = ast.literal_eval(value)
            case "after" | "beside" | "open":
                given[key] = value
            case _:
                raise IncompleteHeader(f"{name}: unknown or out of place: {key!r}")
    if "expected" in given:
        given["tests"] = ""
    return Case(name=name, code=code, **given)


def _of_files() -> list[Case]:
    paths = sorted(PROGRAMS.glob("*/*.py"))
    return [parse(str(path.relative_to(PROGRAMS).with_suffix("")), path.read_text()) for path in paths]


def load() -> list[Case]:
    """Return every case, by name.

    Raises:
        IncompleteHeader: A header is invalid; names the first such file.
    """
    from tests.hostile import sources

    return sorted([*_of_files(), *sources.CASES], key=lambda case: case.name)
