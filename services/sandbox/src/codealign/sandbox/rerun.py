"""A time-out that says more of the machine than of the program, and the second run that decides.

A program whose wall-clock limit passed while it was ready to run and got no processor is run again, once, with
nothing beside it and three times the wall-clock limit (so three times the profile's maximum at most); its CPU limit
stays. What that run says is the verdict.
"""

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

WALL_FACTOR = 3
_LITTLE_CPU = 0.5
"""Of the wall-clock limit: a program that computed for longer has had its time."""
_STALLED = 0.05
"""Of the wall-clock limit: below it the wait for a processor is no reason for the time-out. A program that sleeps or
waits for itself is never ready to run, so its time-out is a verdict at once."""


def is_starved(request: pb.ExecuteRequest, result: pb.Result) -> bool:
    """Whether a time-out (or one among several runs) came from want of a processor.

    The result's seconds are those of all its runs together; a limit holds for each.

    Args:
        request: Checked, every limit filled in.
        result: What its runner says.
    """
    limit = request.limits.wall_seconds
    timed_out = pb.VERDICT_TIMED_OUT in (result.verdict, *result.run_verdicts)
    return (
        timed_out
        and result.wall_seconds >= limit
        and result.cpu_seconds < _LITTLE_CPU * limit * max(request.runs, 1)
        and result.stalled_seconds > _STALLED * limit
    )


def request_alone(request: pb.ExecuteRequest) -> pb.ExecuteRequest:
    """The request of the second run."""
    again = pb.ExecuteRequest()
    again.CopyFrom(request)
    again.limits.wall_seconds *= WALL_FACTOR
    return again


def why(request: pb.ExecuteRequest, result: pb.Result) -> str:
    """What the second run's detail says of the first one."""
    return (
        f"run alone, with {WALL_FACTOR} times the wall-clock limit: in {request.limits.wall_seconds:g} s it had "
        f"{result.cpu_seconds:.2g} s of CPU time, and was kept waiting for a processor for "
        f"{result.stalled_seconds:.2g} s"
    )


def settle(result: pb.Result, reason: str) -> None:
    """Adds to the second run's detail that it ran alone, and why."""
    result.detail = f"{result.detail} ({reason})" if result.detail else reason
