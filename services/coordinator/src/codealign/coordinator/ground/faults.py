"""What an error of another service means for a run."""

from __future__ import annotations

import asyncio

import grpc

from codealign.common.clients import RetryPolicy
from codealign.common.errors import (
    CodeAlignError,
    FailedPrecondition,
    NotFound,
    Unavailable,
    describe,
    violated_fields,
)
from codealign.common.logs import get_logger
from codealign.coordinator.ground.tally import StageTally

log = get_logger(__name__)

_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
_BACKOFF = RetryPolicy(attempts=0, first_delay=0.2, max_delay=5.0)
INTERNAL_TRIES = 5


class RunFailed(Exception):
    """The run cannot go on without a person; the message says why and what to do."""


class RunStopped(Exception):
    """The run was paused or the coordinator drains: no new work is started."""


class Refused(Exception):
    """The service will never carry out this one request; `field` is the violated field's path."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


async def absorb(error: grpc.aio.AioRpcError, tried: int, tally: StageTally, service: str) -> None:
    """Wait before another try, or raise what the error means.

    Args:
        error: What the call raised.
        tried: Tries so far.
        tally: Counts the retry.
        service: Named in messages.

    Raises:
        Refused: INVALID_ARGUMENT.
        RunFailed: An error that another try cannot mend.
    """
    code = error.code()
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        raise Refused((violated_fields(error) or [""])[0], describe(error))
    mendable = code in _TRANSIENT or (
        code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and tried < INTERNAL_TRIES
    )
    if not mendable:
        raise RunFailed(f"{service}: {describe(error)}")
    tally.retries += 1
    delay = _BACKOFF.delay(tried, error)
    log.info("service_retry", service=service, code=code.name, tried=tried, delay=round(delay, 2))
    await asyncio.sleep(delay)


def of_service(error: grpc.aio.AioRpcError, service: str) -> CodeAlignError:
    """Another service's error as ours."""
    text = f"{service}: {describe(error)}"
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return NotFound(text)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return Unavailable(text, retry_after=2.0)
    return FailedPrecondition(text)
