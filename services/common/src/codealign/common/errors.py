"""Errors of CodeAlign. Each maps to one gRPC status, with details that let a caller act on it.

Raise them anywhere below a servicer; the server's interceptor converts them to a status. A message says what is wrong,
where, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

MESSAGE_BYTES = 2400
"""Maximum size of an error message on the wire, as gRPC encodes it (characters outside ASCII take more bytes)."""
DETAIL_BYTES = 1400
"""Maximum size of the violations on the wire. The message is sent twice, once in base64 with the violations. The total
stays below 8 KiB of metadata, above which gRPC drops calls at random, together with the error.
"""
_VIOLATION_BYTES = 600
_CUT = " [cut]"


def shortened(text: str, most: int) -> str:
    """Truncate a text to at most this many bytes as encoded in a gRPC trailer. Lone surrogates are escaped."""
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
    """Base class. Its own status is INTERNAL."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def details(self) -> Iterable[Message]:
        """Return the `google.rpc` messages sent with the status."""
        return ()

    def to_status(self) -> status_pb2.Status:
        """Return the error as a rich status, truncated to the size of a trailer."""
        packed = []
        for detail in self.details():
            box = any_pb2.Any()
            box.Pack(detail)
            packed.append(box)
        message = shortened(self.message, MESSAGE_BYTES)
        return status_pb2.Status(code=code_pb2.Code.Value(self.code.name), message=message, details=packed)


EXIT_CONFIGURATION = 2
"""Exit code of a program that would fail again in the same way if restarted."""


class ConfigurationError(Exception):
    """A setting or the machine prevents the start. Printed as one line; the process exits with code 2."""


class Internal(CodeAlignError):
    """A bug or fault in the service itself."""


class InvalidArgument(CodeAlignError):
    """An invalid request.

    Args:
        field: Path of the field in the request, such as `records[3].attempt`.
        description: What is wrong with it, and what is required.
        violations: Several (field, description) pairs, instead of one.
    """

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self, field: str = "", description: str = "", *, violations: Iterable[tuple[str, str]] | None = None
    ) -> None:
        self.violations = list(violations) if violations is not None else [(field, description)]
        super().__init__("; ".join(f"{path}: {text}" for path, text in self.violations))

    def details(self) -> Iterable[Message]:
        """Return one BadRequest with as many violations as fit into a trailer."""
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
    """The requested object does not exist; the message names it."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(CodeAlignError):
    """The request is valid but not allowed in the current state; the message says what must change first."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unimplemented(CodeAlignError):
    """The server does not support this in its current configuration."""

    code = grpc.StatusCode.UNIMPLEMENTED


class PermissionDenied(CodeAlignError):
    """The caller is not authorized."""

    code = grpc.StatusCode.PERMISSION_DENIED


class DeadlineExceeded(CodeAlignError):
    """The caller's deadline passed; the message says what it was waiting for."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class _Retryable(CodeAlignError):
    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def details(self) -> Iterable[Message]:
        """Return a RetryInfo with the delay after which a retry makes sense."""
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(self.retry_after * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)


class ResourceExhausted(_Retryable):
    """A queue or disk is full: retry after `retry_after` seconds, or free space."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(_Retryable):
    """Temporarily unavailable: retry after `retry_after` seconds."""

    code = grpc.StatusCode.UNAVAILABLE


class Aborted(CodeAlignError):
    """The server gives the call up because it stops: another server can do the work."""

    code = grpc.StatusCode.ABORTED


def retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """Return the delay in seconds that the server requested with RetryInfo, or None."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has what it reads
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return None


def describe(error: grpc.aio.AioRpcError) -> str:
    """Return an RPC error as a sentence: the server's message, or the meaning of a bare status."""
    text = error.details() or ""
    # A status with details is a server's answer, which may report a connection of its own.
    own = error.code() is grpc.StatusCode.UNAVAILABLE and rpc_status.from_call(error) is None  # type: ignore[arg-type]
    if own and ("connect" in text.lower() or "socket" in text.lower()):
        return f"cannot reach the service ({text.splitlines()[0]})"
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and "before" not in text:
        return "no response before the deadline: the service is busy or hangs; increase the timeout or check its log"
    return text or error.code().name


def violated_fields(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the paths of the fields in a BadRequest."""
    return [field for field, _ in violations(error)]


def violations(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    """Return the violations in a BadRequest: the path of each field and what is wrong with it."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has what it reads
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return [(violation.field, violation.description) for violation in bad.field_violations]
    return []
