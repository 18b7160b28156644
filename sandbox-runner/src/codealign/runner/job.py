"""Runs a request as often as it asks for and combines the verdicts into one result."""

from __future__ import annotations

import threading

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import execution, verdict
from codealign.runner.evidence import Cause, Evidence
from codealign.runner.execution import Program
from codealign.runner.profiles import Limits
from codealign.runner.slot import Slot


def _limits(message: pb.Limits) -> Limits:
    return Limits(
        wall_seconds=message.wall_seconds,
        cpu_seconds=message.cpu_seconds,
        memory_bytes=message.memory_bytes,
        processes=message.processes,
        disk_bytes=message.disk_bytes,
        output_bytes=message.output_bytes,
        output_kill_bytes=message.output_kill_bytes,
        threads=message.threads,
    )


def _result(seen: Evidence, judged: verdict.Judgement, limits: Limits) -> pb.Result:
    stdout = seen.stdout[: limits.output_bytes]
    return pb.Result(
        verdict=judged.verdict,
        detail=judged.detail,
        exit_code=seen.exit_code,
        signal=seen.signal,
        failing_line=judged.failing_line,
        failing_source=judged.failing_source,
        exception=judged.exception,
        assertions_executed=judged.assertions_executed,
        assertions_total=judged.assertions_total,
        wall_seconds=seen.wall_seconds,
        cpu_seconds=seen.cpu_seconds,
        stalled_seconds=seen.stalled_seconds,
        peak_memory_bytes=seen.peak_memory_bytes,
        stdout=pb.Output(data=stdout, total_bytes=seen.stdout_total, truncated=seen.stdout_total > len(stdout)),
        stderr=pb.Output(
            data=seen.stderr, total_bytes=seen.stderr_total, truncated=seen.stderr_total > len(seen.stderr)
        ),
    )


def run(slot: Slot, request: pb.ExecuteRequest, cancelled: threading.Event) -> pb.Result:
    """Run a request in a slot.

    Args:
        slot: A slot that nothing else uses.
        request: A request validated by the gateway, with every limit filled in.
        cancelled: Set when the result is no longer wanted.

    Returns:
        The result. Of several runs: the first that failed for a fault of the infrastructure, otherwise the first that
        did not pass, otherwise the first.

    Raises:
        SlotLost: See `execution.execute`.
    """
    program, limits = request.program, _limits(request.limits)
    expected = program.expected_output if program.HasField("expected_output") else None
    asked = verdict.Asked(program.code, program.tests, expected, limits)
    to_run = Program(
        code=program.code,
        tests=program.tests,
        stdin=program.stdin,
        files={file.path: file.content for file in program.files},
        compare=expected is not None,
    )
    results: list[pb.Result] = []
    for _ in range(max(request.runs, 1)):
        seen = execution.execute(slot, to_run, limits, cancelled)
        if seen.killed_for is Cause.CANCELLED:
            return pb.Result(request_id=request.request_id, detail="cancelled")
        results.append(_result(seen, verdict.judge(seen, asked), limits))
    return _together(results, request.request_id)


def _together(results: list[pb.Result], request_id: str) -> pb.Result:
    verdicts = [result.verdict for result in results]
    good = (pb.VERDICT_PASSED, pb.VERDICT_COMPLETED)
    result = next((result for result in results if result.verdict not in good), results[0])
    if pb.VERDICT_INFRASTRUCTURE in verdicts:
        # Whatever the other runs say: with all of them, the program might have been flaky.
        result = results[verdicts.index(pb.VERDICT_INFRASTRUCTURE)]
    result.request_id = request_id
    if len(results) > 1:
        result.run_verdicts.extend(verdicts)
        result.wall_seconds = sum(each.wall_seconds for each in results)
        result.cpu_seconds = sum(each.cpu_seconds for each in results)
        result.stalled_seconds = sum(each.stalled_seconds for each in results)
    if len(set(verdicts)) > 1 and pb.VERDICT_INFRASTRUCTURE not in verdicts:
        names = ", ".join(pb.Verdict.Name(each).removeprefix("VERDICT_") for each in verdicts)
        result.verdict = pb.VERDICT_FLAKY
        result.detail = f"verdicts differ between runs: {names}"
    return result
