"""A time-out that says more of the machine than of the program, and the second run that decides.

A program whose time passed while it was ready to run and got no processor is run again, once, with nothing beside it
and three times the limits of wall-clock and CPU time (so three times the profile's maximum at most; gVisor counts the
wait for a processor as CPU time). What that run says is the verdict.
"""

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

TIME_FACTOR = 3
_LITTLE_CPU = 0.5
"""Of the CPU limit: a program that computed for longer has had its time."""
_STALLED = 0.05
"""Of the wall-clock limit: below it the wait for a processor is no reason for the time-out. A program that sleeps or
waits for itself is never ready to run, so its time-out is a verdict at once."""


def is_starved(request: pb.ExecuteRequest, result: pb.Result) -> bool:
    """Whether a time-out (or one among several runs) came from want of a processor.

    The result's seconds are those of all its runs together; a limit holds for each.

    Args:
        request: Checked, every limit filled in.
        result: What its runner says, with the times that were seen from outside.
    """
    limits = request.limits
    return (
        pb.VERDICT_TIMED_OUT in (result.verdict, *result.run_verdicts)
        and result.cpu_seconds < _LITTLE_CPU * min(limits.cpu_seconds, limits.wall_seconds) * max(request.runs, 1)
        and result.stalled_seconds > _STALLED * limits.wall_seconds
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
