"""A time-out that says more of the machine than of the program, and the second run that decides.

A runner does not count the seconds in which its program was ready to run and got no processor, but ends it after three
times its limit in any case. A program that had less than its limit until then is run again, once, with nothing beside
it and three times the limits (so three times the profile's maximum at most). What that run says is the verdict.
"""

from __future__ import annotations

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner.profiles import TIME_FACTOR

_NEARLY = 0.95
"""Of a limit: whoever had so much of it has had it."""


def is_starved(request: pb.ExecuteRequest, result: pb.Result) -> bool:
    """Whether a time-out (or one among several runs) came from want of a processor.

    The result's seconds are those of all its runs together; a limit holds for each.

    Args:
        request: Checked, every limit filled in.
        result: What its runner says, with the times that were seen from outside.
    """
    limits, runs = request.limits, result.run_verdicts or (result.verdict,)
    ended_by_time = sum(verdict == pb.VERDICT_TIMED_OUT for verdict in runs)
    counted = result.wall_seconds - result.stalled_seconds
    return (
        ended_by_time > 0
        and counted < _NEARLY * limits.wall_seconds * ended_by_time
        and result.cpu_seconds < _NEARLY * limits.cpu_seconds * ended_by_time
    )


def request_alone(request: pb.ExecuteRequest) -> pb.ExecuteRequest:
    """The request of the second run."""
    again = pb.ExecuteRequest()
    again.CopyFrom(request)
    again.limits.wall_seconds *= TIME_FACTOR
    again.limits.cpu_seconds *= TIME_FACTOR
    return again


def why(result: pb.Result) -> str:
    """What the second run's detail says of the first one."""
    return (
        f"run alone, with {TIME_FACTOR} times the limits: in {result.wall_seconds:.2g} s it had "
        f"{result.cpu_seconds:.2g} s of CPU time, and was kept waiting for a processor for "
        f"{result.stalled_seconds:.2g} s"
    )


def settle(result: pb.Result, reason: str) -> None:
    """Adds to the second run's detail that it ran alone, and why."""
    result.detail = f"{result.detail} ({reason})" if result.detail else reason
