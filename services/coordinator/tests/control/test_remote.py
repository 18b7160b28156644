"""The ports over a real gRPC connection: errors arrive as our types, with the details that callers act on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import dataset_pb2_grpc as ds_rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.inference.v1 import inference_pb2_grpc as inf_rpc
from codealign.common import errors
from codealign.common.clients import Addresses, Clients, connect
from codealign.common.interceptors import ServerInterceptor
from codealign.coordinator.ground import remote as module
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.remote import remote

Context = grpc.aio.ServicerContext[Any, Any]


class Fails(ds_rpc.DatasetServiceServicer, inf_rpc.InferenceServiceServicer):
    """Services whose every call fails with the error set by a test."""

    def __init__(self) -> None:
        self.error: Exception | grpc.StatusCode = errors.Unavailable("away")
        self.calls = 0

    async def _fail(self, context: Context) -> None:
        self.calls += 1
        if isinstance(self.error, grpc.StatusCode):
            await context.abort(self.error, "a bare status")
        assert isinstance(self.error, Exception)
        raise self.error

    async def Get(self, request: ds.GetRequest, context: Context) -> ds.GetResponse:
        if request.ids:
            return ds.GetResponse(records=[pb.Record(seed=pb.Seed(code="x" * 2**20))])
        await self._fail(context)
        raise AssertionError

    async def Generate(self, request: inf.GenerateRequest, context: Context) -> AsyncIterator[inf.GenerateResponse]:
        yield inf.GenerateResponse(model="first")
        await self._fail(context)


@asynccontextmanager
async def served(*options: tuple[str, Any]) -> AsyncIterator[tuple[Fails, Services]]:
    server, fails = grpc.aio.server(interceptors=[ServerInterceptor(60)]), Fails()  # type: ignore[abstract]
    ds_rpc.add_DatasetServiceServicer_to_server(fails, server)
    inf_rpc.add_InferenceServiceServicer_to_server(fails, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with Clients(Addresses(dataset=address, inference=address)) as clients:
            clients._channels["dataset"] = connect(address, more_options=options)
            yield fails, remote(clients)
    finally:
        await server.stop(None)


async def test_errors_keep_their_kind_fields_and_delay_and_name_the_service() -> None:
    async with served() as (fails, services):
        fails.error = errors.InvalidArgument(violations=[("ids[3]", "is no id"), ("page_size", "is negative")])
        with pytest.raises(errors.InvalidArgument, match=r"^dataset: ids\[3\]: is no id") as invalid:
            await services.dataset.get(ds.GetRequest())
        assert invalid.value.violations == [("ids[3]", "is no id"), ("page_size", "is negative")]
        for kind in (errors.Unavailable, errors.ResourceExhausted):
            fails.error = kind("for a while", retry_after=7.5)
            with pytest.raises(kind, match=r"^dataset: for a while") as caught:
                await services.dataset.get(ds.GetRequest())
            assert caught.value.retry_after == 7.5
        for plain in (errors.NotFound, errors.FailedPrecondition, errors.Unimplemented, errors.PermissionDenied):
            fails.error = plain("no")
            with pytest.raises(plain, match=r"^dataset: no"):
                await services.dataset.get(ds.GetRequest())
        fails.error = KeyError("oops")
        with pytest.raises(errors.Internal, match="KeyError"):
            await services.dataset.get(ds.GetRequest())
        assert fails.calls == 8, "one try for each call"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.ABORTED, errors.Unavailable),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNAUTHENTICATED, errors.PermissionDenied),
        (grpc.StatusCode.UNKNOWN, errors.Internal),
        (grpc.StatusCode.DATA_LOSS, errors.Internal),
    ],
)
async def test_a_bare_status_is_an_error_of_ours(code: grpc.StatusCode, kind: type[errors.CodeAlignError]) -> None:
    async with served() as (fails, services):
        fails.error = code
        with pytest.raises(errors.CodeAlignError) as caught:
            await services.dataset.get(ds.GetRequest())
        assert type(caught.value) is kind
        if isinstance(caught.value, errors.Unavailable):
            assert caught.value.retry_after == module.DEFAULT_RETRY_AFTER


async def test_an_error_after_the_first_message_of_a_stream_is_ours_too() -> None:
    async with served() as (fails, services):
        fails.error = errors.FailedPrecondition("another revision is loaded")
        seen = []
        async with aclosing(services.inference.generate(inf.GenerateRequest(), timeout=10)) as responses:
            seen.append((await anext(responses)).model)
            with pytest.raises(errors.FailedPrecondition, match=r"^inference: another revision"):
                await anext(responses)
        assert seen == ["first"]


async def test_a_message_that_is_too_large_is_no_fault_that_passes() -> None:
    async with served(("grpc.max_receive_message_length", 2**19)) as (_, services):
        with pytest.raises(errors.InvalidArgument, match="larger than max"):
            await services.dataset.get(ds.GetRequest(ids=["0" * 32]))


async def test_a_service_that_cannot_be_reached_is_unavailable() -> None:
    async with Clients(Addresses(dataset="127.0.0.1:1")) as clients:
        with pytest.raises(errors.Unavailable, match=r"^dataset: cannot reach the service"):
            await remote(clients).dataset.get(ds.GetRequest())


@pytest.mark.parametrize("text", ["Received RST_STREAM with error code 2", "Stream removed", "Socket closed"])
def test_what_the_transport_reports_is_unavailable_whatever_its_status(text: str) -> None:
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE):
        error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=text)
        assert isinstance(module.translated(error, "dataset"), errors.Unavailable)
