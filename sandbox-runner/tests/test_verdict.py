"""Precedence, from evidence alone."""

from __future__ import annotations

import dataclasses

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import verdict, witness
from codealign.runner.evidence import Cause, Evidence, Report, parse_report
from codealign.runner.instrument import Kind
from codealign.runner.profiles import DEFAULT

ASKED = verdict.Asked("code = 1", "first\nassert x == 1", None, DEFAULT.defaults)


def report(kind: Kind, text: str = "", *, executed: int = 0, line: int = 0, flags: int = 0) -> Report:
    return Report(kind, 1, executed, line, flags, text.encode())


BEGAN = report(Kind.BEGAN, line=1)
ENDED = report(Kind.ENDED, executed=1)
FAILED = report(Kind.FAILED, executed=1, line=2)


def raised(limit: str, kind: str = "Error", flags: int = 0) -> Report:
    return report(Kind.RAISED, f"{limit}\0{kind}\0tests\0why", line=1, flags=flags)


def name(seen: Evidence, asked: verdict.Asked = ASKED) -> str:
    return pb.Verdict.Name(verdict.judge(seen, asked).verdict).removeprefix("VERDICT_")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Evidence([BEGAN, ENDED], exit_code=0), "PASSED"),
        (Evidence([BEGAN, ENDED], exit_code=3), "PASSED"),
        (Evidence([BEGAN], exit_code=0), "EXITED_EARLY"),
        (Evidence([BEGAN, raised("exit")], exit_code=0), "EXITED_EARLY"),
        (Evidence([BEGAN, report(Kind.ENDED)], exit_code=0), "NO_TESTS"),
        (Evidence([report(Kind.UNASSERTED)], exit_code=1), "NO_TESTS"),
        (Evidence([BEGAN, FAILED, ENDED], exit_code=0), "FAILED_ASSERTION"),
        (Evidence([BEGAN, FAILED], exit_code=0), "FAILED_ASSERTION"),
        (Evidence([BEGAN, FAILED, raised("other")], exit_code=1), "FAILED_ASSERTION"),
        (Evidence([BEGAN, raised("assertion")], exit_code=1), "FAILED_ASSERTION"),
        (Evidence([BEGAN, raised("other")], exit_code=1), "RAISED"),
        (Evidence([BEGAN, raised("memory")], exit_code=1), "OUT_OF_MEMORY"),
        (Evidence([BEGAN, raised("disk")], exit_code=1), "DISK_LIMIT"),
        (Evidence([BEGAN, raised("thread")], exit_code=1), "PROCESS_LIMIT"),
        (Evidence([BEGAN, raised("process", flags=witness.STARTED)], exit_code=1), "PROCESS_LIMIT"),
        (Evidence([BEGAN, raised("process")], exit_code=1), "RAISED"),
        (Evidence([BEGAN], signal=11), "CRASHED"),
        (Evidence([BEGAN, ENDED], signal=11), "CRASHED"),
        (Evidence([BEGAN, FAILED], signal=6), "CRASHED"),
        (Evidence([], signal=11), "CRASHED"),
        (Evidence([BEGAN, ENDED], signal=9, killed_for=Cause.WALL), "TIMED_OUT"),
        (Evidence([BEGAN, FAILED], signal=9, killed_for=Cause.CPU), "TIMED_OUT"),
        (Evidence([BEGAN], signal=9, killed_for=Cause.OUTPUT), "OUTPUT_LIMIT"),
        (Evidence([BEGAN], signal=9, killed_for=Cause.MEMORY), "OUT_OF_MEMORY"),
        (Evidence([BEGAN], signal=9, killed_for=Cause.PROCESSES), "PROCESS_LIMIT"),
        (Evidence([BEGAN, raised("disk")], signal=9, killed_for=Cause.WALL), "DISK_LIMIT"),
        (Evidence([BEGAN, raised("disk")], signal=9, killed_for=Cause.MEMORY), "OUT_OF_MEMORY"),
        (Evidence([BEGAN, report(Kind.ENDED, executed=1, flags=witness.TRACED)], exit_code=0), "EXITED_EARLY"),
        (Evidence([], exit_code=70, stderr=b"sandbox: OSError: mount"), "INFRASTRUCTURE"),
    ],
)
def test_the_first_true_verdict_is_given(seen: Evidence, expected: str) -> None:
    assert name(seen) == expected


def test_a_source_that_does_not_compile_is_told_first() -> None:
    seen = Evidence([report(Kind.UNCOMPILED, "syntax\0SyntaxError\0code\0bad", line=3)], exit_code=1)
    judged = verdict.judge(seen, ASKED)
    assert (judged.verdict, judged.failing_line, judged.failing_source) == (pb.VERDICT_SYNTAX_ERROR, 3, "code")


def test_a_failed_assertion_quotes_its_line() -> None:
    judged = verdict.judge(Evidence([BEGAN, FAILED], exit_code=1), ASKED)
    assert (judged.detail, judged.failing_line, judged.failing_source) == ("assert x == 1", 2, "tests")


ALONE = dataclasses.replace(ASKED, tests="")
COMPARED = dataclasses.replace(ALONE, expected_output="a\nb  \n\n")


@pytest.mark.parametrize(
    ("seen", "asked", "expected"),
    [
        (Evidence([BEGAN, ENDED], exit_code=0), ALONE, "COMPLETED"),
        (Evidence([BEGAN, raised("exit")], exit_code=3), ALONE, "COMPLETED"),
        (Evidence([BEGAN], exit_code=0), ALONE, "EXITED_EARLY"),
        (Evidence([BEGAN, ENDED], exit_code=0, stdout=b"a  \nb\n"), COMPARED, "PASSED"),
        (Evidence([BEGAN, raised("exit")], exit_code=0, stdout=b"a\nb"), COMPARED, "PASSED"),
        (Evidence([BEGAN, ENDED], exit_code=0, stdout=b"a\nc"), COMPARED, "FAILED_ASSERTION"),
        (Evidence([BEGAN, ENDED], exit_code=0, stdout=b"a\n\nb"), COMPARED, "FAILED_ASSERTION"),
        (Evidence([BEGAN], exit_code=0, stdout=b"a\nb"), COMPARED, "EXITED_EARLY"),
        (Evidence([BEGAN, raised("other")], exit_code=1, stdout=b"a\nb"), COMPARED, "RAISED"),
    ],
)
def test_without_tests_an_orderly_end_completes_or_is_compared(
    seen: Evidence, asked: verdict.Asked, expected: str
) -> None:
    assert name(seen, asked) == expected


def test_a_report_without_the_key_is_none() -> None:
    key = bytes(range(32))
    message = witness.HEADER.pack(Kind.ENDED, 1, 5, 0) + b"\0"
    whole = message + witness.digest(message, key)
    parsed = parse_report(whole, key)
    assert parsed is not None
    assert (parsed.kind, parsed.executed) == (Kind.ENDED, 5)
    assert parse_report(whole, bytes(32)) is None
    assert parse_report(whole[:-1], key) is None
    assert parse_report(b"", key) is None
    assert parse_report(bytes([Kind.FAILED]) + whole[1:], key) is None
