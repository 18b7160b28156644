"""The result of several runs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import execution, job
from codealign.runner.evidence import Evidence, Report
from codealign.runner.reports import Flag, Kind

BEGAN = Report(Kind.BEGAN, 0, 1, Flag(0))
PASSED = Evidence([BEGAN, Report(Kind.PROVED, 1, 0, Flag(0))], exit_code=0)
FAILED = Evidence([BEGAN, Report(Kind.FAILED, 1, 1, Flag(0))], exit_code=1)
UNSTARTED = Evidence([], exit_code=70, stderr=b"no memory")


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([PASSED, PASSED], "PASSED"),
        ([PASSED, FAILED], "FLAKY"),
        ([FAILED, FAILED], "FAILED_ASSERTION"),
        ([PASSED, UNSTARTED], "INFRASTRUCTURE"),
        ([FAILED, UNSTARTED], "INFRASTRUCTURE"),
        ([PASSED, FAILED, UNSTARTED], "INFRASTRUCTURE"),
    ],
)
def test_a_fault_of_the_infrastructure_in_one_run_is_no_verdict_on_the_program(
    monkeypatch: pytest.MonkeyPatch, runs: list[Evidence], expected: str
) -> None:
    seen = iter(runs)
    monkeypatch.setattr(execution, "execute", lambda *_: next(seen))
    slot: Any = None
    program = pb.Program(code="def f(): pass", tests="assert f() is None")
    result = job.run(slot, pb.ExecuteRequest(program=program, runs=len(runs)), threading.Event())
    assert pb.Verdict.Name(result.verdict).removeprefix("VERDICT_") == expected
