"""Execution results are cached, unless they may depend on the machine."""

from __future__ import annotations

import asyncio

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.evaluation.known import KnownResults


class Sandbox:
    """Sandbox that returns one result and counts the executions."""

    def __init__(
        self, verdict: sb.Verdict.ValueType = sb.VERDICT_PASSED, image: str = "a", stdout: bytes = b""
    ) -> None:
        self.result = sb.Result(verdict=verdict, isolation=sb.ISOLATION_GVISOR, image_digest=image, queue_seconds=3)
        self.result.stdout.data = stdout
        self.executed = 0

    async def execute(self) -> sb.Result | None:
        self.executed += 1
        await asyncio.sleep(0)
        given = sb.Result()
        given.CopyFrom(self.result)
        return given


def request(code: str, seconds: float = 1.0) -> sb.ExecuteRequest:
    return sb.ExecuteRequest(program=sb.Program(code=code), limits=sb.Limits(wall_seconds=seconds))


async def test_the_same_program_with_the_same_limits_is_executed_once() -> None:
    known, sandbox = KnownResults(), Sandbox()
    first, *others = await asyncio.gather(*(known.of(request("a"), sandbox.execute) for _ in range(5)))
    assert sandbox.executed == 1
    assert first is not None
    assert first.queue_seconds == 3
    for other in others:
        assert other is not None
        assert (other.verdict, other.queue_seconds) == (sb.VERDICT_PASSED, 0)
    await known.of(request("a", seconds=2.0), sandbox.execute)
    await known.of(request("b"), sandbox.execute)
    assert sandbox.executed == 3


async def test_each_caller_has_a_copy() -> None:
    known, sandbox = KnownResults(), Sandbox(stdout=b"said")
    for _ in range(2):
        result = await known.of(request("a"), sandbox.execute)
        assert result is not None
        assert result.stdout.data == b"said"
        result.stdout.data = b""


async def test_what_the_machine_may_be_to_blame_for_is_executed_again() -> None:
    for verdict in (sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY):
        known, sandbox = KnownResults(), Sandbox(verdict)
        for _ in range(2):
            await known.of(request("a"), sandbox.execute)
        assert sandbox.executed == 2
    known, sandbox = KnownResults(), Sandbox(sb.VERDICT_RAISED)
    sandbox.result.exception = "CallTimedOut"
    for _ in range(2):
        await known.of(request("a"), sandbox.execute)
    assert sandbox.executed == 2
    known, sandbox = KnownResults(), Sandbox()
    sandbox.result.isolation = sb.ISOLATION_PROCESS
    for _ in range(2):
        await known.of(request("a"), sandbox.execute)
    assert sandbox.executed == 2


async def test_other_runners_are_asked_again() -> None:
    known, sandbox, other = KnownResults(), Sandbox(), Sandbox(image="b")
    for _ in range(2):
        await known.of(request("a"), sandbox.execute, "a")
        found = await known.of(request("a"), other.execute, "b")
        assert found is not None
        assert found.image_digest == "b"
    assert (sandbox.executed, other.executed) == (1, 1)


async def test_what_was_not_used_for_longest_goes_first() -> None:
    known, sandbox = KnownResults(limit_bytes=2500), Sandbox(stdout=b"x" * 1000)
    for code in ("a", "b", "a", "c"):
        await known.of(request(code), sandbox.execute)
    assert sandbox.executed == 3
    await known.of(request("a"), sandbox.execute)
    assert sandbox.executed == 3
    await known.of(request("b"), sandbox.execute)
    assert sandbox.executed == 4
