"""The errors of CodeAlign: each is one gRPC status, with the details that let a caller act on it.

Raise them anywhere below a servicer; the server's interceptor turns them into a status. A message says what was
wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

MESSAGE_BYTES = 2400
"""Of an error's message, what goes over the wire, as gRPC encodes it (a character outside ASCII takes more)."""
DETAIL_BYTES = 1400
"""Of the violations, likewise. The message goes twice, once of them in base64 with the violations: together less than
the 8 KiB of metadata from which on gRPC drops a call at random, and the error with it."""
_VIOLATION_BYTES = 600
_CUT = " [cut]"


def shortened(text: str, most: int) -> str:
    """The text, or its beginning, in at most so many bytes as a gRPC trailer encodes it; lone surrogates escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) * 9 < most:
        return text
    taken = 0
    for place, character in enumerate(text):
        taken += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if taken > most:
            return text[: max(0, place - len(_CUT))] + _CUT
    return text


class CodeAlignError(Exception):
    """Base class; its own status is INTERNAL."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def details(self) -> Iterable[Message]:
        """The `google.rpc` messages that travel with the status."""
        return ()

    def to_status(self) -> status_pb2.Status:
        """This error as the rich status that goes over the wire, cut to what a trailer holds."""
        packed = []
        for detail in self.details():
            box = any_pb2.Any()
            box.Pack(detail)
            packed.append(box)
        message = shortened(self.message, MESSAGE_BYTES)
        return status_pb2.Status(code=code_pb2.Code.Value(self.code.name), message=message, details=packed)


class ConfigurationError(Exception):
    """A setting or the machine does not allow a start. Printed as one line; the process exits with 2."""


class Internal(CodeAlignError):
    """A fault of ours."""


class InvalidArgument(CodeAlignError):
    """A request that cannot be carried out as it is.

    Args:
        field: The field's path in the request, as in `records[3].attempt`.
        description: What is wrong with it, and what would be right.
        violations: Several of these at once, in place of the two.
    """

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self, field: str = "", description: str = "", *, violations: Iterable[tuple[str, str]] | None = None
    ) -> None:
        self.violations = list(violations) if violations is not None else [(field, description)]
        super().__init__("; ".join(f"{path}: {text}" for path, text in self.violations))

    def details(self) -> Iterable[Message]:
        """One BadRequest with every violation, as far as a trailer holds them."""
        bad = error_details_pb2.BadRequest()
        for path, text in self.violations:
            bad.field_violations.add(
                field=shortened(path, _VIOLATION_BYTES), description=shortened(text, _VIOLATION_BYTES)
            )
            if bad.ByteSize() > DETAIL_BYTES and len(bad.field_violations) > 1:
                del bad.field_violations[-1]
                break
        yield bad


class NotFound(CodeAlignError):
    """No such thing; the message names it."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(CodeAlignError):
    """Right request, wrong state; the message says what must change first."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unimplemented(CodeAlignError):
    """This server, as it is configured, cannot do that."""

    code = grpc.StatusCode.UNIMPLEMENTED


class PermissionDenied(CodeAlignError):
    """The caller may not call this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class DeadlineExceeded(CodeAlignError):
    """The caller's deadline passed; the message says what was waited for."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class _Retryable(CodeAlignError):
    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def details(self) -> Iterable[Message]:
        """RetryInfo with the delay after which another try makes sense."""
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(self.retry_after * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)


class ResourceExhausted(_Retryable):
    """Full (a queue, a disk): try again after `retry_after` seconds, or make room."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(_Retryable):
    """Away for now: try again after `retry_after` seconds."""

    code = grpc.StatusCode.UNAVAILABLE


def retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """The delay in seconds that the server asked for with RetryInfo, or None."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has what it reads
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return None


def describe(error: grpc.aio.AioRpcError) -> str:
    """An RPC's error as a sentence for a person: the server's message, or what a bare status means."""
    text = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE and ("connect" in text.lower() or "socket" in text.lower()):
        return f"cannot reach the service ({text.splitlines()[0]})"
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and "before" not in text:
        return "no answer before the deadline: the service is busy or hangs; raise the time-out or look at its log"
    return text or error.code().name


def violated_fields(error: grpc.aio.AioRpcError) -> list[str]:
    """The paths of the fields that a BadRequest names."""
    return [field for field, _ in violations(error)]


def violations(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    """What a BadRequest says: the path of each wrong field, and what is wrong with it."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has what it reads
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return [(violation.field, violation.description) for violation in bad.field_violations]
    return []
