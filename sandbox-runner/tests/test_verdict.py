"""Verdicts and their precedence, from evidence alone."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import verdict
from codealign.runner.evidence import Cause, Evidence, Report, Tokens
from codealign.runner.profiles import DEFAULT
from codealign.runner.reports import Flag, Kind

ASKED = verdict.Asked("code = 1", "first\nassert x == 1", None, DEFAULT.defaults)


NONE = Flag(0)


def report(kind: Kind, text: str = "", *, executed: int = 0, line: int = 0, flags: Flag = NONE) -> Report:
    return Report(kind, executed, line, flags, text.encode())


BEGAN = report(Kind.BEGAN, line=1)
ENDED = report(Kind.PROVED, executed=1)
FAILED = report(Kind.FAILED, executed=1, line=2)


def raised(limit: str, kind: str = "Error", flags: Flag = NONE) -> Report:
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
        (Evidence([BEGAN, report(Kind.UNPROVED)], exit_code=0), "NO_TESTS"),
        (Evidence([report(Kind.UNASSERTED)], exit_code=1), "NO_TESTS"),
        (Evidence([BEGAN, FAILED, ENDED], exit_code=0), "FAILED_ASSERTION"),
        (Evidence([BEGAN, FAILED], exit_code=0), "FAILED_ASSERTION"),
        (Evidence([BEGAN, FAILED, raised("other")], exit_code=1), "FAILED_ASSERTION"),
        (Evidence([BEGAN, raised("assertion")], exit_code=1), "FAILED_ASSERTION"),
        (Evidence([BEGAN, raised("other")], exit_code=1), "RAISED"),
        (Evidence([BEGAN, raised("memory")], exit_code=1), "OUT_OF_MEMORY"),
        (Evidence([BEGAN, raised("disk")], exit_code=1), "DISK_LIMIT"),
        (Evidence([BEGAN, raised("thread")], exit_code=1), "PROCESS_LIMIT"),
        (Evidence([BEGAN, raised("process", flags=Flag.STARTED)], exit_code=1), "PROCESS_LIMIT"),
        (Evidence([BEGAN, raised("process")], exit_code=1), "RAISED"),
        (Evidence([BEGAN], signal=9, killed_for=Cause.THREADS), "PROCESS_LIMIT"),
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
        (Evidence([BEGAN, report(Kind.UNPROVED, executed=1, flags=Flag.TRACED)], exit_code=0), "EXITED_EARLY"),
        (Evidence([BEGAN, report(Kind.UNPROVED, executed=1, flags=Flag.TAMPERED)], exit_code=0), "EXITED_EARLY"),
        (Evidence([BEGAN, report(Kind.UNPROVED, executed=1, flags=Flag.UNITTEST)], exit_code=0), "EXITED_EARLY"),
        (Evidence([BEGAN, report(Kind.UNPROVED, executed=1, flags=Flag.FAILURE)], exit_code=0), "FAILED_ASSERTION"),
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
        (Evidence([BEGAN, raised("exit")], exit_code=0), ALONE, "COMPLETED"),
        (Evidence([BEGAN, raised("exit")], exit_code=3), ALONE, "EXITED_EARLY"),
        (Evidence([BEGAN, ENDED], exit_code=3), ALONE, "EXITED_EARLY"),
        (Evidence([BEGAN], exit_code=0), ALONE, "EXITED_EARLY"),
        (Evidence([BEGAN, ENDED], exit_code=0, stdout=b"a  \nb\n"), COMPARED, "PASSED"),
        (Evidence([BEGAN, raised("exit")], exit_code=0, stdout=b"a\nb"), COMPARED, "PASSED"),
        (Evidence([BEGAN, raised("exit")], exit_code=1, stdout=b"a\nb"), COMPARED, "EXITED_EARLY"),
        (Evidence([BEGAN, ENDED], exit_code=1, stdout=b"a\nb"), COMPARED, "EXITED_EARLY"),
        (Evidence([BEGAN, raised("exit")], exit_code=1, stdout=b"a\nc"), COMPARED, "EXITED_EARLY"),
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


def test_a_failed_assertion_is_quoted_by_the_line_that_python_counts() -> None:
    asked = dataclasses.replace(ASKED, tests="x = 'a\x0cb\u2028c'\r\nassert x == 1")
    assert verdict.judge(Evidence([BEGAN, FAILED], exit_code=1), asked).detail == "assert x == 1"


def test_a_report_without_its_token_is_none() -> None:
    tokens = Tokens()
    own = {kind: tokens.packed[16 * kind : 16 * kind + 16] for kind in Kind}
    rest = struct.pack("=BB2xII", Kind.PROVED, Flag.STARTED, 5, 2)
    parsed = tokens.report(own[Kind.PROVED] + rest + b"text")
    assert parsed == Report(Kind.PROVED, 5, 2, Flag.STARTED, b"text")
    assert tokens.report(own[Kind.FAILED] + rest) is None, "the token of another kind"
    assert tokens.report(bytes(16) + rest) is None
    assert tokens.report(own[Kind.PROVED] + rest[:-1]) is None
    assert tokens.report(own[Kind.PROVED] + struct.pack("=BB2xII", 99, 0, 0, 0)) is None
    assert tokens.report(b"") is None
    assert Tokens().packed != tokens.packed


def test_a_report_with_numbers_that_no_result_holds_has_a_result() -> None:
    tokens = Tokens()
    token = tokens.packed[16 * Kind.RAISED : 16 * Kind.RAISED + 16]
    text = b"other\0ValueError\0code\0why"
    # A traceback with line -1.
    parsed = tokens.report(token + struct.pack("=BB2xII", Kind.RAISED, 0, (1 << 32) - 1, (1 << 32) - 1) + text)
    assert parsed is not None
    judged = verdict.judge(Evidence([BEGAN, parsed], exit_code=1), ASKED)
    assert pb.Result(**dataclasses.asdict(judged)).failing_line == 0
