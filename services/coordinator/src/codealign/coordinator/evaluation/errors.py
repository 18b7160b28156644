"""What went wrong in an evaluation, as its caller is told."""

from __future__ import annotations

import grpc

from codealign.common.errors import FailedPrecondition, InvalidArgument
from codealign.coordinator.ground.faults import Refused, RunFailed, of_service


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
