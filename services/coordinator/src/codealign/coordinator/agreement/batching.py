"""Many mutants of one answer in one execution, and what it wrote.

The program executes the answer itself and then each mutant with the answer's tests, and observes those that survive at
the inputs (`in_sandbox/batch.py`). A fork costs about as much in the sandbox as an execution, so mutants share a child,
one after the other, each in an empty module. Whatever ends or stops the child ends only the mutant that it was at, and
the next one begins in a new child. Before each mutant the answer itself has just passed its tests in the same process,
or nothing was executed in it: where a mutant has changed something that outlives its module, the child ends.

The fate of a mutant is

    passed      the tests ran to their end
    failed      they raised something: an AssertionError, another exception, SystemExit
    ended       the process ended otherwise, by a crash for instance
    timed out   it took `SECONDS` of CPU time, and the answer, executed again right afterwards, a tenth of that at most
    memory, waited, printed, slow, lost
                undecided: a MemoryError, more than `WAIT_SECONDS` in all, more than 1 MiB printed, a time-out while the
                answer was slow too, or no word from the process

These are the fates that the runner's verdict on the mutant alone would give, with four differences:

- A mutant that takes between `SECONDS` and the run's limit would be seen to end alone. Here it counts as one that no
  longer ends: it takes more than ten times as long as the answer. So does one that has not used up its memory by then.
- "passed" says that the tests survived only if they must then have executed an assertion, and none that failed
  (`separable.proves`). Otherwise the mutant is executed alone.
- Programs that may share more than a module are not executed together (`separable.modules`).
- If the answer does not pass its own tests here, nothing is decided.

What is undecided is executed alone, and so is the mutant at which the program ended, if it did not end by itself. Those
after it are tried together again. The program begins no mutant after `TOTAL_SECONDS`.

A line begins with a marker that derives from a key and the mutant's number. The parent process passes on lines with the
marker of the mutant that its child is at, so an ordinary mutant cannot write another's. Lines that are cut, malformed
or there twice decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import embedded, observing, separable
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import Outcome
from codealign.coordinator.agreement.subjects import Subject
from codealign.coordinator.reading.python_code import BOM

SECONDS = 3.0
"""CPU time of one mutant with the tests."""
FACTOR = 10.0
"""The answer must take so much less, or a time-out decides nothing."""
WAIT_SECONDS = 30.0
"""Wall-clock time of one mutant, with its observation."""
TOTAL_SECONDS = 20.0
"""CPU time after which no further mutant is begun. As much again may be needed for the last one."""
LIMITS = sb.Limits(wall_seconds=60, cpu_seconds=60, output_bytes=1 << 20)
_OUTPUT_BYTES = 900_000
"""Of all observations. What does not fit is observed alone."""
_FATES = {"passed": False, "failed": True, "ended": True, "timed out": True}
_PASSED, _END = ["program", "passed"], ["end"]
_BATCH = embedded.part("batch")


@dataclass(frozen=True)
class Fate:
    """What became of a mutant."""

    killed: bool | None
    """Whether the tests detect it. None: undecided."""
    outcomes: tuple[Outcome, ...] | None = None
    """Of one that survived, at each input. None: it was not observed."""


@dataclass(frozen=True)
class Batch:
    """What became of the mutants of one program."""

    fates: tuple[Fate | None, ...]
    """Of each mutant. None: the program did not get to it."""
    ended: bool
    """Whether the program ended by itself."""


def program(
    code: str, tests: str, mutants: Sequence[str], key: str, subject: Subject | None, inputs: Sequence[Input]
) -> sb.Program | None:
    """Return the program that executes mutants.

    Args:
        code: The answer's code, which passes the tests.
        tests: Its tests.
        mutants: Codes.
        key: Anything that belongs to this execution. The markers derive from it.
        subject: What to call in survivors. None: they are not observed.
        inputs: What to call it with.

    Returns:
        None if they cannot be executed beside each other.
    """
    code, tests = code.removeprefix(BOM), tests.removeprefix(BOM)
    imported = separable.modules(code, tests)
    if imported is None:
        return None
    is_observed = subject is not None and inputs and separable.proves(tests)
    asked = {
        "code": code,
        "tests": tests,
        "mutants": list(separable.differences(code, mutants)),
        "markers": [_marker(key, number) for number in range(len(mutants) + 1)],
        "observed": observing.calls(subject, inputs) if is_observed and subject is not None else None,
        "seconds": SECONDS,
        "factor": FACTOR,
        "wait_seconds": WAIT_SECONDS,
        "total_seconds": TOTAL_SECONDS,
        "output_bytes": _OUTPUT_BYTES,
    }
    parts = (observing.FORMS, observing.OBSERVER, _BATCH)
    text = embedded.driver(parts, "run_batch", asked, comment=" ".join(imported))
    return sb.Program(language=sb.LANGUAGE_PYTHON, code="", tests=text)


def _key(key: str, number: int) -> str:
    return f"{key}\nmutant {number}"


def _marker(key: str, number: int) -> str:
    return observing.marker(_key(key, number))


def read(stdout: bytes, key: str, mutants: int, inputs: int, *, proves: bool) -> Batch:
    """Read what the program wrote.

    Args:
        stdout: Its standard output.
        key: The key that the program was made with.
        mutants: Number of its mutants.
        inputs: Number of its inputs.
        proves: Whether tests that ran to their end have passed; see `separable.proves`.
    """
    lines = stdout.split(b"\n")[:-1]  # the last one has no end
    own = _said(lines, _marker(key, 0))
    if own[:1] != [_PASSED] or own[1:] not in ([], [_END]):
        return Batch((Fate(None),) * mutants, ended=True)
    fates = []
    for number in range(1, mutants + 1):
        fate = _fate(_said(lines, _marker(key, number)))
        if fate is not None and fate.killed is False:
            observed = fate.outcomes is not None
            found = observing.read(stdout, _key(key, number), inputs).outcomes if observed and proves else None
            fate = Fate(False if proves else None, found)
        fates.append(fate)
    return Batch(tuple(fates), ended=_END in own)


def _said(lines: Sequence[bytes], marker: str) -> list[object]:
    """Return what the lines with a marker say, but for outcomes, which `observing` reads."""
    begin = f"{marker} ".encode()
    said: list[object] = []
    for line in lines:
        if line.startswith(begin):
            try:
                found = json.loads(line[len(begin) :])
            except (ValueError, RecursionError):
                found = None
            if not (isinstance(found, list) and found[:1] == ["input"]):
                said.append(found)
    return said


def _fate(said: Sequence[object]) -> Fate | None:
    """Return the fate that the lines of a mutant tell: one of it, and one that it was observed."""
    match said:
        case []:
            return None
        case [["program", str(fate)]] if fate in _FATES:
            return Fate(_FATES[fate])
        case [["observed"], ["program", "passed"]]:
            return Fate(False, ())
        case _:
            return Fate(None)
