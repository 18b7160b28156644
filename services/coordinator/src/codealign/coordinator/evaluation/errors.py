"""What went wrong in an evaluation, as its caller is told."""

from __future__ import annotations

import grpc

from codealign.common.errors import CodeAlignError, FailedPrecondition, InvalidArgument, NotFound, Unavailable, describe
from codealign.coordinator.runs.faults import Refused, RunFailed


def told(error: BaseException) -> BaseException:
    """The error to raise for what ended the work; a fault of ours stays as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RunFailed):
        return FailedPrecondition(str(error))
    if isinstance(error, Refused):
        field = "prompt_style" if error.field.startswith("chat") else error.field
        return InvalidArgument(field, str(error))
    if isinstance(error, grpc.aio.AioRpcError):
        return of_service(error, "dataset")
    return error


def of_service(error: grpc.aio.AioRpcError, service: str) -> CodeAlignError:
    """Another service's error as ours."""
    text = f"{service}: {describe(error)}"
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return NotFound(text)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return Unavailable(text, retry_after=2.0)
    return FailedPrecondition(text)
