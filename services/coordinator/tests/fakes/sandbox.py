"""A sandbox that is a function: nothing is executed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from fakes.control import Control

Judges = Callable[[sb.Program], sb.Result | Awaitable[sb.Result]]
"""What becomes of a program; an exception that it raises is the call's error. What it leaves out of the result (runner,
image, isolation) is filled in."""
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
    """Every program passes its tests."""
    return sb.Result(verdict=sb.VERDICT_PASSED, assertions_executed=1, assertions_total=1, wall_seconds=0.01)


class FakeSandbox:
    """A sandbox with one runner.

    Args:
        judges: What becomes of a program.
        slots: Programs that it runs at once, as GetCapacity says.
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
        """Change it as a test wants it: results have its name, isolation and image."""

    async def execute(self, request: sb.ExecuteRequest, *, timeout: float) -> sb.ExecuteResponse:
        """What the function says of the program."""
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
        """The runner."""
        async with self.control.call("get_runner", request):
            return sb.GetRunnerResponse(runners=[self.runner])

    async def get_capacity(self, request: sb.GetCapacityRequest) -> sb.GetCapacityResponse:
        """`slots`, and how many programs are there."""
        async with self.control.call("get_capacity", request):
            there = self.control.in_flight["execute"]
            return sb.GetCapacityResponse(
                runners=1,
                slots=self.slots,
                busy=min(there, self.slots),
                queued=max(0, there - self.slots),
                queue_limit=self.queue_limit,
            )
