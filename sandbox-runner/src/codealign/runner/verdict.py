"""From what was seen to a verdict: a pure function, in the order that the contract documents."""

import dataclasses
import signal

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import witness
from codealign.runner.evidence import Cause, Evidence, Report
from codealign.runner.instrument import Kind
from codealign.runner.profiles import Limits

_DETAIL_LIMIT = 500
_LIMITS = {
    "memory": pb.VERDICT_OUT_OF_MEMORY,
    "process": pb.VERDICT_PROCESS_LIMIT,
    "disk": pb.VERDICT_DISK_LIMIT,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a request wants to be judged."""

    code: str
    tests: str
    expected_output: str | None
    limits: Limits


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and what explains it; fields as in the contract's `Result`."""

    verdict: pb.Verdict
    detail: str = ""
    failing_line: int = 0
    failing_source: str = ""
    exception: str = ""
    assertions_executed: int = 0
    assertions_total: int = 0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_DETAIL_LIMIT]


def _source_line(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _normalised(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")] if text.strip() else []


def _difference(expected: str, actual: bytes) -> str | None:
    """None when they are equal; else where they first differ."""
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


def _killed(seen: Evidence, limits: Limits) -> tuple[pb.Verdict, str] | None:
    match seen.killed_for:
        case Cause.MEMORY:
            return pb.VERDICT_OUT_OF_MEMORY, f"killed: more than {limits.memory_bytes} bytes of memory"
        case Cause.OUTPUT:
            return pb.VERDICT_OUTPUT_LIMIT, f"killed: more than {limits.output_kill_bytes} bytes of output"
        case Cause.WALL:
            return pb.VERDICT_TIMED_OUT, f"killed: more than {limits.wall_seconds:g} s of wall-clock time"
        case Cause.CPU:
            return pb.VERDICT_TIMED_OUT, f"killed: more than {limits.cpu_seconds:g} s of CPU time"
    return None


def _of_limit(seen: Evidence, raised: Report | None, limits: Limits) -> tuple[pb.Verdict, str] | None:
    """The verdict that a limit gives: those of exceptions first, then those of kills, in the contract's order."""
    killed = _killed(seen, limits)
    if killed is not None and killed[0] == pb.VERDICT_OUT_OF_MEMORY:
        return killed
    if raised is not None:
        limit, kind, _, message = raised.fields
        # EAGAIN is also what a socket without data says: without an attempt to start something it is no limit.
        started = limit != "process" or raised.flags & witness.STARTED
        if limit in _LIMITS and started:
            return _LIMITS[limit], _one_line(f"{kind}: {message}")
    return killed


def _of_exception(raised: Report, asked: Asked) -> tuple[pb.Verdict, str] | None:
    limit, kind, source, message = raised.fields
    if limit == "exit":
        return None
    line = _source_line(asked.tests if source == "tests" else asked.code, raised.line)
    if limit == "assertion":
        return pb.VERDICT_FAILED_ASSERTION, _one_line(f"{line or kind}: {message}" if message else line or kind)
    return pb.VERDICT_RAISED, _one_line(f"{kind}: {message}")


def _before_running(seen: Evidence) -> Judgement | None:
    """What was decided without running anything."""
    uncompiled = seen.report(Kind.UNCOMPILED)
    if uncompiled is not None:
        _, kind, source, message = uncompiled.fields
        detail = _one_line(f"{kind}: {message}")
        return Judgement(pb.VERDICT_SYNTAX_ERROR, detail, uncompiled.line, source, kind)
    if seen.report(Kind.UNASSERTED) is not None:
        return Judgement(pb.VERDICT_NO_TESTS, "the tests hold no assertion")
    return None


def judge(seen: Evidence, asked: Asked) -> Judgement:
    """Says what became of a program.

    Args:
        seen: The evidence of one run.
        asked: What the request was.

    Returns:
        The first of the contract's verdicts that is true.
    """
    decided = _before_running(seen)
    if decided is not None:
        return decided
    began, raised, failed = (seen.report(kind) for kind in (Kind.BEGAN, Kind.RAISED, Kind.FAILED))
    executed = max((report.executed for report in seen.reports), default=0)
    total = began.line if began is not None else 0
    facts = {"assertions_executed": executed, "assertions_total": total}
    line = source = exception = None
    if raised is not None and raised.fields[0] != "exit":
        _, exception, source, _ = raised.fields
        line = raised.line
    place = {"failing_line": line or 0, "failing_source": source or "", "exception": exception or ""}

    limit = _of_limit(seen, raised, asked.limits)
    if limit is not None:
        return Judgement(*limit, **place, **facts)
    if seen.signal:
        return Judgement(pb.VERDICT_CRASHED, f"ended by {_signal_name(seen.signal)}", **place, **facts)
    if began is None:
        detail = _one_line(f"the harness did not start: {seen.stderr.decode('utf-8', 'replace')}")
        return Judgement(pb.VERDICT_INFRASTRUCTURE, detail)
    if failed is not None:
        detail = _one_line(_source_line(asked.tests, failed.line))
        return Judgement(pb.VERDICT_FAILED_ASSERTION, detail, failed.line, "tests", "AssertionError", **facts)
    if raised is not None:
        ended = _of_exception(raised, asked)
        if ended is not None:
            return Judgement(*ended, **place, **facts)
    return _of_an_end(seen, asked, executed, total)


def _of_an_end(seen: Evidence, asked: Asked, executed: int, total: int) -> Judgement:
    """For a program that no limit, signal, failed assertion or exception ended."""
    ended, raised = seen.report(Kind.ENDED), seen.report(Kind.RAISED)
    facts = {"assertions_executed": executed, "assertions_total": total}
    last = ended or raised
    if last is None or (raised is not None and asked.tests):
        return Judgement(pb.VERDICT_EXITED_EARLY, f"ended with exit code {seen.exit_code} before its end", **facts)
    if asked.tests and last.flags & witness.TRACED:
        detail = "it set a trace function, which can skip statements: that its tests ran is not proved"
        return Judgement(pb.VERDICT_EXITED_EARLY, detail, **facts)
    if asked.tests:
        if executed == 0:
            return Judgement(pb.VERDICT_NO_TESTS, "ran to its end without executing an assertion", **facts)
        return Judgement(pb.VERDICT_PASSED, "", **facts)
    if asked.expected_output is None:
        return Judgement(pb.VERDICT_COMPLETED)
    difference = _difference(asked.expected_output, seen.stdout)
    one = {"assertions_executed": 1, "assertions_total": 1}
    if difference is not None:
        return Judgement(pb.VERDICT_FAILED_ASSERTION, _one_line(difference), **one)
    return Judgement(pb.VERDICT_PASSED, "", **one)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
