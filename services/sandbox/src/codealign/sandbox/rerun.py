"""Detects time-outs caused by the machine rather than the program, and prepares the second run that decides.

A runner does not count the seconds in which its program was ready to run but got no processor. It ends the program
after three times its limit in any case. A program that had received less than its limit by then is run again, once,
with nothing else running and with three times the limits (at most three times the profile's maximum). The verdict is
that of the second run.
"""

from __future__ import annotations

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner.profiles import TIME_FACTOR

_NEARLY = 0.95
"""Fraction of a limit from which on a program counts as having received all of it."""


def is_starved(request: pb.ExecuteRequest, result: pb.Result) -> bool:
    """Return whether a time-out (or one of several runs) was caused by a lack of processor time.

    The result's seconds are the sum over all its runs; a limit applies to each run.

    Args:
        request: A validated request with every limit filled in.
        result: The runner's result, with the times measured from outside.
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
    """Return the request for the second run."""
    again = pb.ExecuteRequest()
    again.CopyFrom(request)
    again.limits.wall_seconds *= TIME_FACTOR
    again.limits.cpu_seconds *= TIME_FACTOR
    return again


def why(result: pb.Result) -> str:
    """Return the part of the second run's detail that describes the first one."""
    return (
        f"run alone, with {TIME_FACTOR} times the limits: in {result.wall_seconds:.2g} s it received "
        f"{result.cpu_seconds:.2g} s of CPU time and waited for a processor for "
        f"{result.stalled_seconds:.2g} s"
    )


def settle(result: pb.Result, reason: str) -> None:
    """Add to the second run's detail that it ran alone, and why."""
    result.detail = f"{result.detail} ({reason})" if result.detail else reason
