"""The program that observes an answer at inputs, and what it wrote.

The program is an answer's code as it is, and tests that call its subject with each input. For each input it writes one
line to standard output. It runs in the sandbox as any other program; its verdict does not matter.

An outcome is made by these rules (`in_sandbox/forms.py` and `in_sandbox/observer.py`):

- Arguments are made anew for every call. Arguments that a call changes, and what it prints, belong to its outcome.
- Values are compared by type and content. Floats are rounded to 12 significant digits, so that another order of
  additions is no other outcome; nan equals nan, -0.0 equals 0.0, and a whole float below 10^12 equals the integer, as
  for `==`.
  True is not 1, and a list is no tuple. Sets and dicts have no order. An object of a subclass of a builtin type is what
  it derives from: a Counter is a dict, a namedtuple a tuple.
- An iterator is compared by its first 1,000 items, as an iterator. A coroutine is run.
- An enum's member is compared by its name, a dataclass by its compared fields, another object by its type's name and
  its public attributes. An object without any, a function, and a value that is too large cannot be compared.
- An exception is compared by the name of its type.
- A call that uses up its CPU time has the outcome "timed out". One that waits too long is unobserved.
- Each input is called twice, with other states of the random generators. If the outcomes differ, the outcome is
  "unstable". What depends on the order of sets is not found so: the runners fix the hash seed.
- Whatever is missing, not well-formed, too long, or written twice is unobserved. "Unobserved" and "unstable" count
  neither for nor against an attempt.

The marker that begins a line keeps what an answer prints from being taken for an outcome. A determined program could
read it in its own process: observations compare attempts of a model that wants to be right, and are no proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import embedded, literals
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.oracles import Oracle
from codealign.coordinator.agreement.outcomes import KINDS, UNOBSERVED, Observations, Outcome
from codealign.coordinator.agreement.subjects import HOLE, Subject

LIMITS = sb.Limits(wall_seconds=25, cpu_seconds=20, output_bytes=1 << 20)
"""Limits of the program in the sandbox, above those that it keeps itself, unless its calls wait for something."""
MAX_LINE = 8_192
"""Bytes of a line that is accepted."""
_OPTIONAL = (("printed", ""), ("changed", ""), ("floats", False))


@dataclass(frozen=True)
class CallLimits:
    """Limits of the calls of one program."""

    seconds: float = 1.0
    """CPU time of one call."""
    total_seconds: float = 10.0
    """CPU time after which no further call is begun."""


FORMS, OBSERVER = embedded.part("forms"), embedded.part("observer")
"""Our sources in the sandbox."""


def program(
    code: str,
    subject: Subject,
    inputs: Sequence[Input],
    key: str,
    *,
    oracles: Sequence[Oracle] = (),
    preamble: Sequence[str] = (),
    limits: CallLimits = CallLimits(),
) -> sb.Program:
    """Return the program that observes an answer.

    Args:
        code: The answer's code.
        subject: What to call in it.
        inputs: What to call it with.
        key: Anything that belongs to this execution, such as a record's id. The marker derives from it.
        oracles: Oracles of the answer's tests, which are evaluated at the inputs too.
        preamble: What the oracles may need of the tests.
        limits: Limits of the calls.
    """
    asked = {
        **calls(subject, inputs, limits),
        "marker": marker(key),
        "oracles": [[each.parameters, each.expression] for each in oracles],
        "preamble": list(preamble),
    }
    tests = embedded.driver((FORMS, OBSERVER), "observe", asked)
    return sb.Program(language=sb.LANGUAGE_PYTHON, code=code, tests=tests)


def calls(subject: Subject, inputs: Sequence[Input], limits: CallLimits = CallLimits()) -> dict[str, object]:
    """Return what the observer must know to call a subject with inputs."""
    call = f"{subject.callee}(*_, **__)"
    if subject.view:
        call = f"(lambda {HOLE}: {subject.view})({call})"
    texts = [text for each in inputs for text in (*each.arguments.positional, *dict(each.arguments.keywords).values())]
    return {
        "call": call,
        "inputs": [[each.arguments.positional, each.arguments.keywords] for each in inputs],
        "modules": sorted(module for module in literals.MODULES if any(f"{module}." in text for text in texts)),
        "oracles": [],
        "preamble": [],
        "seconds": limits.seconds,
        "total_seconds": limits.total_seconds,
    }


def marker(key: str) -> str:
    """Return what begins the lines of an execution."""
    return hashlib.sha256(f"observations\n{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read(stdout: bytes, key: str, inputs: int, oracles: int = 0, *, ended: str = "") -> Observations:
    """Read what the program wrote.

    Args:
        stdout: Its standard output, which may contain anything else.
        key: The key that the program was made with.
        inputs: Number of its inputs.
        oracles: Number of its oracles.
        ended: How it ended, for people: the reason for what was not observed.
    """
    missing = Outcome(UNOBSERVED, ended or "the program ended before")
    found: dict[tuple[int, int], Outcome] = {}
    for place, outcome in _lines(stdout, f"{marker(key)} ".encode()):
        twice = place in found
        found[place] = Outcome(UNOBSERVED, "written twice") if twice else outcome
    own, *others = (
        tuple(found.get((oracle, number), missing) for number in range(inputs)) for oracle in range(-1, oracles)
    )
    return Observations(own, tuple(others))


def _lines(stdout: bytes, begin: bytes) -> Iterator[tuple[tuple[int, int], Outcome]]:
    """Yield outcomes by oracle (-1: the answer) and number of the input, from the lines that are well-formed."""
    lines = stdout.split(b"\n")
    for line in lines[:-1]:  # the last one has no end
        if line.startswith(begin) and len(line) <= MAX_LINE:
            try:
                yield _parsed(json.loads(line[len(begin) :]))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue


def _parsed(line: object) -> tuple[tuple[int, int], Outcome]:
    """Read a line of `observer.py`.

    Raises:
        ValueError, TypeError: It is none.
    """
    match line:
        case ["input", int(number), {"kind": str(kind), "text": str(text), **rest}]:
            place = (-1, number)
        case ["oracle", int(oracle), int(number), {"kind": str(kind), "text": str(text), **rest}]:
            place = (oracle, number)
        case _:
            raise ValueError("no line of the observer")
    printed, changed, floats = (rest.pop(name, empty) for name, empty in _OPTIONAL)
    texts = [each for each in (text, printed, changed) if isinstance(each, str) and each.isascii()]
    if rest or kind not in KINDS or not isinstance(floats, bool) or not "".join(texts).isprintable():
        raise ValueError("no outcome")
    text, printed, changed = texts  # one that is missing is a ValueError
    return place, Outcome(kind, text, printed, changed, floats)
