"""Fake sandbox: a function decides the results, and nothing is executed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from fakes.control import Control

Judges = Callable[[sb.Program], sb.Result | Awaitable[sb.Result]]
"""Returns the result of a program; an exception becomes the call's error. Missing runner, image and isolation are
filled in."""
IMAGE_DIGEST = "sha256:" + "1" * 64
PYTHON_VERSION = "3.11.9"
DEFAULTS = sb.Limits(
    wall_seconds=10,
    cpu_seconds=10,
    memory_bytes=2**29,
    processes=64,
    disk_bytes=2**26,
    output_bytes=2**16,
    output_kill_bytes=2**24,
    threads=64,
)


def passes(program: sb.Program) -> sb.Result:
    """Let every program pass its tests."""
    return sb.Result(verdict=sb.VERDICT_PASSED, assertions_executed=1, assertions_total=1, wall_seconds=0.01)


class FakeSandbox:
    """A sandbox with one runner.

    Args:
        judges: Function that returns the result of a program.
        slots: Number of concurrent programs that GetCapacity reports.
    """

    def __init__(self, judges: Judges = passes, *, slots: int = 4) -> None:
        self.control = Control("sandbox")
        self.judges = judges
        self.slots = slots
        self.queue_limit = 1000
        self.requests: list[sb.ExecuteRequest] = []
        self.runner = sb.Runner(
            name="runner-1",
            state=sb.RUNNER_STATE_READY,
            backend="runsc",
            platform="systrap",
            isolation=sb.ISOLATION_GVISOR,
            slots=slots,
            image_digest=IMAGE_DIGEST,
            python_version=PYTHON_VERSION,
            profiles=["default"],
            profile_limits=[sb.ProfileLimits(profile="default", defaults=DEFAULTS, maxima=DEFAULTS)],
        )
        """Runner that results name; tests may change it, including its isolation and image."""

    async def execute(self, request: sb.ExecuteRequest, *, timeout: float) -> sb.ExecuteResponse:
        """Return the function's result for the program."""
        self.requests.append(request)
        async with self.control.call("execute", request):
            judged = self.judges(request.program)
            result = sb.Result()
            result.CopyFrom(await judged if inspect.isawaitable(judged) else judged)
            result.request_id = request.request_id
            result.runner = result.runner or self.runner.name
            if result.verdict != sb.VERDICT_REFUSED:
                result.isolation = result.isolation or self.runner.isolation
                result.image_digest = result.image_digest or self.runner.image_digest
            return sb.ExecuteResponse(result=result)

    async def get_runner(self, request: sb.GetRunnerRequest) -> sb.GetRunnerResponse:
        """Return the runner."""
        async with self.control.call("get_runner", request):
            return sb.GetRunnerResponse(runners=[self.runner])

    async def get_capacity(self, request: sb.GetCapacityRequest) -> sb.GetCapacityResponse:
        """Return `slots` and the number of programs in flight."""
        async with self.control.call("get_capacity", request):
            there = self.control.in_flight["execute"]
            return sb.GetCapacityResponse(
                runners=1,
                slots=self.slots,
                busy=min(there, self.slots),
                queued=max(0, there - self.slots),
                queue_limit=self.queue_limit,
            )
