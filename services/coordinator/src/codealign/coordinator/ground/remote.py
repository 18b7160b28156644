"""The ports over gRPC: one try per call, with a deadline, and errors of `codealign.common.errors`.

An error's message begins with the service's name. Violated fields and the requested retry delay are kept. Transport
failures (a reset connection, a removed stream, a call cancelled by the server) become `Unavailable`, whatever status
gRPC gave them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.clients import NO_RETRY, Clients
from codealign.common.errors import (
    CodeAlignError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    describe,
    retry_delay,
)
from codealign.coordinator.ground.ports import Services

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

LEASE_SECONDS = 10.0
"""Deadline of lease calls: shorter than most leases, so that a renewal can be retried in time."""
CALL_SECONDS = 60.0
SUBMIT_SECONDS = 600.0
"""Deadline of submitting a training job, which reads the model and the rows first."""
LONG_SECONDS = 2 * 3600.0
"""Deadline of calls that may take an hour: publishing, loading a model."""
DEFAULT_RETRY_AFTER = 1.0
"""Retry delay in seconds if the service requested none."""

_PLAIN: dict[grpc.StatusCode, type[CodeAlignError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ALREADY_EXISTS: FailedPrecondition,
    grpc.StatusCode.OUT_OF_RANGE: FailedPrecondition,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDenied,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED})
_OF_THE_TRANSPORT = ("rst_stream", "stream removed", "goaway", "connection reset", "socket closed", "broken pipe")


def translated(error: grpc.aio.AioRpcError, service: str) -> CodeAlignError:
    """Convert an RPC error to one of `codealign.common.errors`.

    Args:
        error: The error that the call raised.
        service: Service name that begins the message.
    """
    code, text = error.code(), f"{service}: {describe(error)}"
    if code is grpc.StatusCode.INVALID_ARGUMENT or _is_too_large(error):
        return _invalid(error, text)
    if code in _AWAY or (code not in _PLAIN and _is_of_the_transport(error)):
        return Unavailable(text, retry_after=_retry_after(error))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ResourceExhausted(text, retry_after=_retry_after(error))
    return _PLAIN.get(code, Internal)(text)


def _retry_after(error: grpc.aio.AioRpcError) -> float:
    asked = retry_delay(error)
    return DEFAULT_RETRY_AFTER if asked is None else asked


def _is_of_the_transport(error: grpc.aio.AioRpcError) -> bool:
    text = (error.details() or "").lower()
    return any(sign in text for sign in _OF_THE_TRANSPORT)


def _is_too_large(error: grpc.aio.AioRpcError) -> bool:
    """Return whether gRPC itself refused the message for its size: retrying cannot help."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or "")


def _invalid(error: grpc.aio.AioRpcError, text: str) -> InvalidArgument:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has the attributes it reads
    violations: list[tuple[str, str]] = []
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            violations += [(violation.field, violation.description) for violation in bad.field_violations]
    invalid = InvalidArgument(violations=violations or [("", text)])
    invalid.message = text
    invalid.args = (text,)
    return invalid


class _Remote:
    """Client of one service."""

    service: str

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout: float = CALL_SECONDS,
    ) -> ResponseT:
        try:
            return await self._clients.call(method, request, timeout=timeout, retry=NO_RETRY)
        except grpc.aio.AioRpcError as error:
            raise translated(error, self.service) from error


class RemoteDataset(_Remote):
    """`ports.Dataset` over gRPC."""

    service = "dataset"

    async def append(self, request: ds.AppendRequest) -> ds.AppendResponse:
        """Add records, all or none."""
        return await self._call(self._clients.dataset.Append, request)

    async def get(self, request: ds.GetRequest) -> ds.GetResponse:
        """Return records by id."""
        return await self._call(self._clients.dataset.Get, request)

    async def join(self, request: ds.JoinRequest) -> ds.JoinResponse:
        """Add records to a collection and return them."""
        return await self._call(self._clients.dataset.Join, request)

    async def scan(self, request: ds.ScanRequest) -> ds.ScanResponse:
        """Return a page of records."""
        return await self._call(self._clients.dataset.Scan, request)

    async def count(self, request: ds.CountRequest) -> ds.CountResponse:
        """Return counts of records and the resources they used."""
        return await self._call(self._clients.dataset.Count, request)

    async def lineage(self, request: ds.LineageRequest) -> ds.LineageResponse:
        """Return a record's ancestors or descendants."""
        return await self._call(self._clients.dataset.Lineage, request)

    async def publish_version(self, request: ds.PublishVersionRequest) -> ds.PublishVersionResponse:
        """Write a collection's examples as a version. May take an hour."""
        return await self._call(self._clients.dataset.PublishVersion, request, LONG_SECONDS)

    async def acquire_lease(self, request: ds.AcquireLeaseRequest) -> ds.AcquireLeaseResponse:
        """Acquire a lease. Raises `Unavailable` if another holder has it."""
        return await self._call(self._clients.dataset.AcquireLease, request, LEASE_SECONDS)

    async def renew_lease(self, request: ds.RenewLeaseRequest) -> ds.RenewLeaseResponse:
        """Renew a lease. Raises `FailedPrecondition` if it expired or another holder has it."""
        return await self._call(self._clients.dataset.RenewLease, request, LEASE_SECONDS)

    async def release_lease(self, request: ds.ReleaseLeaseRequest) -> ds.ReleaseLeaseResponse:
        """Release a lease."""
        return await self._call(self._clients.dataset.ReleaseLease, request, LEASE_SECONDS)


class RemoteInference(_Remote):
    """`ports.Inference` over gRPC."""

    service = "inference"

    async def generate(self, request: inf.GenerateRequest, *, timeout: float) -> AsyncGenerator[inf.GenerateResponse]:
        """Yield completions as they finish. Closing the generator cancels the request."""
        stream = self._clients.stream(self._clients.inference.Generate, request, timeout=timeout, retry=NO_RETRY)
        try:
            async with contextlib.aclosing(stream) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AioRpcError as error:
            raise translated(error, self.service) from error

    async def get_model(self, request: inf.GetModelRequest) -> inf.GetModelResponse:
        """Return a loaded model."""
        return await self._call(self._clients.inference.GetModel, request)

    async def get_load(self, request: inf.GetLoadRequest) -> inf.GetLoadResponse:
        """Return the engine's current load and capacity."""
        return await self._call(self._clients.inference.GetLoad, request)

    async def count_tokens(self, request: inf.CountTokensRequest) -> inf.CountTokensResponse:
        """Count the tokens of texts."""
        return await self._call(self._clients.inference.CountTokens, request)

    async def list_models(self, request: inf.ListModelsRequest) -> inf.ListModelsResponse:
        """Return the loaded models."""
        return await self._call(self._clients.inference.ListModels, request)

    async def load_model(self, request: inf.LoadModelRequest) -> inf.LoadModelResponse:
        """Load a model. May take an hour."""
        return await self._call(self._clients.inference.LoadModel, request, LONG_SECONDS)

    async def unload_model(self, request: inf.UnloadModelRequest) -> inf.UnloadModelResponse:
        """Unload a model; if it is still loading, wait for that first."""
        return await self._call(self._clients.inference.UnloadModel, request, LONG_SECONDS)


class RemoteSandbox(_Remote):
    """`ports.Sandbox` over gRPC."""

    service = "sandbox"

    async def execute(self, request: sb.ExecuteRequest, *, timeout: float) -> sb.ExecuteResponse:
        """Run one program."""
        return await self._call(self._clients.sandbox.Execute, request, timeout)

    async def get_runner(self, request: sb.GetRunnerRequest) -> sb.GetRunnerResponse:
        """Return the runners."""
        return await self._call(self._clients.sandbox.GetRunner, request)

    async def get_capacity(self, request: sb.GetCapacityRequest) -> sb.GetCapacityResponse:
        """Return the number of slots and of queued programs."""
        return await self._call(self._clients.sandbox.GetCapacity, request)


class RemoteTraining(_Remote):
    """`ports.Training` over gRPC."""

    service = "training"

    async def submit(self, request: tr.SubmitTrainingRequest) -> tr.SubmitTrainingResponse:
        """Submit a training job."""
        return await self._call(self._clients.training.SubmitTraining, request, SUBMIT_SECONDS)

    async def get(self, request: tr.GetTrainingRequest) -> tr.GetTrainingResponse:
        """Return the status of a training job."""
        return await self._call(self._clients.training.GetTraining, request)

    async def cancel(self, request: tr.CancelTrainingRequest) -> tr.CancelTrainingResponse:
        """Cancel a training job."""
        return await self._call(self._clients.training.CancelTraining, request)


def remote(clients: Clients) -> Services:
    """Return the services behind these clients. A service without an address raises an error on its first call."""
    return Services(RemoteDataset(clients), RemoteInference(clients), RemoteSandbox(clients), RemoteTraining(clients))
