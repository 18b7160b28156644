"""Derives a verdict from the evidence: a pure function, in the order documented in the contract."""

from __future__ import annotations

import dataclasses
import signal

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import sources
from codealign.runner.evidence import Cause, Evidence, Report
from codealign.runner.profiles import TIME_FACTOR, Limits
from codealign.runner.reports import Flag, Kind

_DETAIL_LIMIT = 500
_TOLD = 0.1
"""Minimum seconds without a processor that a detail mentions."""
_LIMITS = {
    "memory": pb.VERDICT_OUT_OF_MEMORY,
    "process": pb.VERDICT_PROCESS_LIMIT,
    "thread": pb.VERDICT_PROCESS_LIMIT,
    "disk": pb.VERDICT_DISK_LIMIT,
}
_DOUBTS = {
    Flag.TRACED: "it set a trace function, which can skip statements",
    Flag.TAMPERED: "it reached for memory or code objects (ctypes, code.replace, __code__, /proc/self/mem)",
    Flag.UNITTEST: "it changed the unittest module that its tests use",
}
_PRECEDENCE = (
    pb.VERDICT_OUT_OF_MEMORY,
    pb.VERDICT_PROCESS_LIMIT,
    pb.VERDICT_DISK_LIMIT,
    pb.VERDICT_OUTPUT_LIMIT,
    pb.VERDICT_TIMED_OUT,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks to be judged."""

    code: str
    tests: str
    expected_output: str | None
    limits: Limits


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its explanation. Fields match the contract's `Result`."""

    verdict: pb.Verdict.ValueType
    detail: str = ""
    failing_line: int = 0
    failing_source: str = ""
    exception: str = ""
    assertions_executed: int = 0
    assertions_total: int = 0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_DETAIL_LIMIT]


def _source_line(text: str, line: int) -> str:
    lines = sources.lines(text)
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _normalised(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")] if text.strip() else []


def _difference(expected: str, actual: bytes) -> str | None:
    """Return None if the outputs are equal, otherwise a description of the first difference."""
    want, have = _normalised(expected), _normalised(actual.decode("utf-8", "replace"))
    if want == have:
        return None
    for index in range(max(len(want), len(have))):
        left = want[index] if index < len(want) else None
        right = have[index] if index < len(have) else None
        if left != right:
            expectation = "the end" if left is None else repr(left[:80])
            found = "the end" if right is None else repr(right[:80])
            return f"standard output, line {index + 1}: expected {expectation}, got {found}"
    return "standard output differs"


def _wall_time(seen: Evidence, limits: Limits) -> str:
    """Describe how much wall-clock time counted and how much did not."""
    counted = seen.wall_seconds - seen.stalled_seconds
    if counted < limits.wall_seconds:
        most = limits.wall_seconds * TIME_FACTOR
        return f"{most:g} s of wall-clock time, {seen.stalled_seconds:.2g} s of them without a processor"
    apart = f", apart from {seen.stalled_seconds:.2g} s without a processor" if seen.stalled_seconds >= _TOLD else ""
    return f"more than {limits.wall_seconds:g} s of wall-clock time{apart}"


def _of_limit(seen: Evidence, raised: Report | None, limits: Limits) -> tuple[pb.Verdict.ValueType, str] | None:
    """Return the verdict of a limit that killed the program or caused an uncaught exception."""
    found: list[tuple[pb.Verdict.ValueType, str]] = []
    match seen.killed_for:
        case Cause.MEMORY:
            found.append((pb.VERDICT_OUT_OF_MEMORY, f"killed: more than {limits.memory_bytes} bytes of memory"))
        case Cause.PROCESSES:
            found.append((pb.VERDICT_PROCESS_LIMIT, f"killed: more than {limits.processes} processes"))
        case Cause.THREADS:
            found.append((pb.VERDICT_PROCESS_LIMIT, f"killed: more than {limits.threads} threads"))
        case Cause.OUTPUT:
            found.append((pb.VERDICT_OUTPUT_LIMIT, f"killed: more than {limits.output_kill_bytes} bytes of output"))
        case Cause.WALL:
            found.append((pb.VERDICT_TIMED_OUT, f"killed: {_wall_time(seen, limits)}"))
        case Cause.CPU:
            found.append((pb.VERDICT_TIMED_OUT, f"killed: more than {limits.cpu_seconds:g} s of CPU time"))
    if raised is not None:
        limit, kind, _, message = raised.fields
        # A socket without data also fails with EAGAIN. It is a limit only if the program tried to start something.
        if limit in _LIMITS and (limit != "process" or raised.flags & Flag.STARTED):
            found.append((_LIMITS[limit], _one_line(f"{kind}: {message}")))
    return min(found, key=lambda each: _PRECEDENCE.index(each[0]), default=None)


def _of_exception(raised: Report, asked: Asked) -> tuple[pb.Verdict.ValueType, str] | None:
    limit, kind, source, message = raised.fields
    if limit == "exit":
        return None
    line = _source_line(asked.tests if source == "tests" else asked.code, raised.line)
    if limit == "assertion":
        return pb.VERDICT_FAILED_ASSERTION, _one_line(f"{line or kind}: {message}" if message else line or kind)
    return pb.VERDICT_RAISED, _one_line(f"{kind}: {message}")


def _before_running(seen: Evidence) -> Judgement | None:
    """Return the judgement if it was decided without running anything."""
    uncompiled = seen.report(Kind.UNCOMPILED)
    if uncompiled is not None:
        _, kind, source, message = uncompiled.fields
        detail = _one_line(f"{kind}: {message}")
        return Judgement(pb.VERDICT_SYNTAX_ERROR, detail, uncompiled.line, source, kind)
    unasserted = seen.report(Kind.UNASSERTED)
    if unasserted is not None:
        return Judgement(pb.VERDICT_NO_TESTS, _missing(unasserted))
    return None


def _missing(report: Report) -> str:
    """Return what the harness found in the tests before the program started."""
    return _one_line(report.text.decode("utf-8", "replace"))


def _place(raised: Report | None) -> Judgement:
    """Return a judgement with the place and name of an exception."""
    if raised is None or raised.fields[0] == "exit":
        return Judgement(pb.VERDICT_UNSPECIFIED)
    _, kind, source, _ = raised.fields
    return Judgement(pb.VERDICT_UNSPECIFIED, "", raised.line, source, kind)


def judge(seen: Evidence, asked: Asked) -> Judgement:
    """Judge a program.

    Args:
        seen: The evidence of one run.
        asked: The request.

    Returns:
        The first of the contract's verdicts that applies.
    """
    decided = _before_running(seen)
    if decided is not None:
        return decided
    began, raised = seen.report(Kind.BEGAN), seen.report(Kind.RAISED)
    base = dataclasses.replace(
        _place(raised),
        assertions_executed=max((report.executed for report in seen.reports), default=0),
        assertions_total=began.line if began is not None else 0,
    )

    def told(verdict: pb.Verdict.ValueType, detail: str) -> Judgement:
        return dataclasses.replace(base, verdict=verdict, detail=detail)

    limit = _of_limit(seen, raised, asked.limits)
    if limit is not None:
        return told(*limit)
    if seen.signal:
        return told(pb.VERDICT_CRASHED, f"ended by {_signal_name(seen.signal)}")
    if began is None:
        said = seen.stderr.decode("utf-8", "replace")
        return Judgement(pb.VERDICT_INFRASTRUCTURE, _one_line(f"the harness did not start: {said}"))
    failed = seen.report(Kind.FAILED)
    if failed is not None:
        base = dataclasses.replace(
            base, failing_line=failed.line, failing_source="tests", exception=AssertionError.__name__
        )
        return told(pb.VERDICT_FAILED_ASSERTION, _one_line(_source_line(asked.tests, failed.line)))
    if raised is not None:
        ended = _of_exception(raised, asked)
        if ended is not None:
            return told(*ended)
    return _of_an_end(seen, asked, base)


def _of_an_end(seen: Evidence, asked: Asked, base: Judgement) -> Judgement:
    """Judge a program that was not ended by a limit, signal, failed assertion or exception."""

    def told(verdict: pb.Verdict.ValueType, detail: str = "") -> Judgement:
        return dataclasses.replace(base, verdict=verdict, detail=detail)

    raised = seen.report(Kind.RAISED)
    proved, unproved = seen.report(Kind.PROVED), seen.report(Kind.UNPROVED)
    # Without tests, an orderly exit is a normal end, and its status says whether the program succeeded.
    left = proved is None and unproved is None and (raised is None or asked.tests)
    if left or (not asked.tests and seen.exit_code):
        where = " before its end" if left else ""
        return told(pb.VERDICT_EXITED_EARLY, f"ended with exit code {seen.exit_code}{where}")
    if asked.tests and proved is not None:
        return told(pb.VERDICT_PASSED)
    if asked.tests and unproved is not None:
        return told(*_of_doubt(unproved, seen.report(Kind.BEGAN)))
    if asked.expected_output is None:
        return told(pb.VERDICT_COMPLETED)
    base = dataclasses.replace(base, assertions_executed=1, assertions_total=1)
    difference = _difference(asked.expected_output, seen.stdout)
    if difference is not None:
        return told(pb.VERDICT_FAILED_ASSERTION, _one_line(difference))
    return told(pb.VERDICT_PASSED)


def _of_doubt(unproved: Report, began: Report | None) -> tuple[pb.Verdict.ValueType, str]:
    """Judge tests that ran to their end without proof of an executed assertion."""
    if unproved.flags & Flag.FAILURE:
        return pb.VERDICT_FAILED_ASSERTION, "an assertion failed"
    for flag, what in _DOUBTS.items():
        if unproved.flags & flag:
            return pb.VERDICT_EXITED_EARLY, f"{what}: it is not proven that its tests ran"
    return pb.VERDICT_NO_TESTS, "" if began is None else _missing(began)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
