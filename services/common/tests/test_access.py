"""Who may call what, with real certificates, a real server and real channels."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common import access, certificates
from codealign.common.clients import ClientTls, connect
from codealign.common.server import ALL, Registration
from tests.pki import Authority

from .conftest import Served, Start

EXECUTE = pb.ExecuteRequest(request_id="a")
SERVICE = "codealign.api.sandbox.v1.SandboxService"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def served(start: Start, authority: Authority) -> Served:
    """Start `odd_server` with mutual TLS: coordinators may call Execute, trainers ExecuteStream, people everything."""
    return start(**authority.server())


async def stream(channel: grpc.aio.Channel, count: int = 3) -> list[str]:
    async def requests() -> AsyncIterator[pb.ExecuteStreamRequest]:
        for number in range(count):
            yield pb.ExecuteStreamRequest(request=pb.ExecuteRequest(request_id=str(number)))

    call = rpc.SandboxServiceStub(channel).ExecuteStream(requests(), timeout=10)
    return [response.result.request_id async for response in call]


async def refused_stream(channel: grpc.aio.Channel) -> str:
    """Return a stream's refusal. Nothing is sent, because gRPC's client loses the status if sending fails first."""
    call = rpc.SandboxServiceStub(channel).ExecuteStream(timeout=10)
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    return str(await call.details())


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, caught.value
    return str(caught.value.details())


async def test_each_caller_may_call_what_is_listed_for_it_and_nothing_else(
    served: Served, authority: Authority
) -> None:
    async with connect(served.address, authority.sign("coordinator")) as channel:
        stub = rpc.SandboxServiceStub(channel)
        assert (await stub.Execute(EXECUTE, timeout=10)).result.request_id == "a"
        told = await refused(stub.GetCapacity(pb.GetCapacityRequest(), timeout=10))
        assert told == f"'coordinator' may not call {SERVICE}/GetCapacity: use a certificate of client"
        told = await refused_stream(channel)
        assert told == f"'coordinator' may not call {SERVICE}/ExecuteStream: use a certificate of client or trainer"
    async with connect(served.address, authority.sign("trainer")) as channel:
        assert await stream(channel) == ["0", "1", "2"]
        await refused(rpc.SandboxServiceStub(channel).Execute(EXECUTE, timeout=10))
    async with connect(served.address, authority.sign("client")) as channel:
        stub = rpc.SandboxServiceStub(channel)
        assert (await stub.GetCapacity(pb.GetCapacityRequest(), timeout=10)).slots == 1
        assert (await stub.Execute(EXECUTE, timeout=10)).result.detail.startswith("calls=2")
        assert await stream(channel) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        pytest.param("/CN=stranger", "'stranger' may not call", id="unknown"),
        pytest.param("/CN=runners", "'runners' may not call", id="beside hostile programs"),
        pytest.param("/CN=Client", "'Client' may not call", id="another case"),
        pytest.param("/CN=client ", "'client ' may not call", id="a space more"),
        pytest.param("/CN=*", "'*' may not call", id="the word for all"),
        pytest.param("/O=client/OU=client", "a certificate without exactly one common name", id="none"),
        pytest.param("/CN=client/CN=stranger", "a certificate without exactly one common name", id="two"),
        pytest.param("/CN=stranger/CN=client", "a certificate without exactly one common name", id="two the other way"),
        pytest.param("/CN=stranger+CN=client", "a certificate without exactly one common name", id="two in one"),
        pytest.param("/CN=client/CN=client", "a certificate without exactly one common name", id="twice"),
    ],
)
async def test_who_is_not_exactly_one_known_caller_is_refused(
    served: Served, authority: Authority, subject: str, told: str
) -> None:
    """Other names in the certificate do not count: here the alternative names include a client."""
    extra = ("-multivalue-rdn",) if "+" in subject else ()
    async with connect(served.address, authority.sign("client", subject, more=extra)) as channel:
        assert told in await refused(rpc.SandboxServiceStub(channel).Execute(EXECUTE, timeout=10))
        assert told in await refused_stream(channel)
        assert told in await refused_reflection(channel)


async def reflected(channel: Any) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [each async for each in stub.ServerReflectionInfo(iter([request]), timeout=10)]
    return [service.name for service in answers[0].list_services_response.service]


async def refused_reflection(channel: Any) -> str:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(timeout=10)
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    return str(await call.details())


async def test_contracts_are_shown_to_every_caller_and_health_to_every_certificate(
    served: Served, authority: Authority
) -> None:
    async with connect(served.address, authority.sign("keda")) as channel:
        assert SERVICE in await reflected(channel)
    async with connect(served.address, authority.sign("runners")) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status == 1


async def test_without_a_certificate_there_is_no_connection(served: Served, authority: Authority) -> None:
    async with connect(served.address, ClientTls(authority.certificate)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rpc.SandboxServiceStub(channel).Execute(EXECUTE, timeout=3)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_where_callers_have_no_names_nothing_is_refused(start: Start, authority: Authority) -> None:
    files = {name: value for name, value in authority.server().items() if name != "tls_client_ca_file"}
    for served, tls in ((start(), None), (start(**files), ClientTls(authority.certificate))):
        async with connect(served.address, tls) as channel:
            assert (await rpc.SandboxServiceStub(channel).Execute(EXECUTE, timeout=10)).result.request_id == "a"
            assert await stream(channel) == ["0", "1", "2"]
            assert SERVICE in await reflected(channel)


async def test_nothing_is_read_of_who_may_not_call(served: Served, authority: Authority) -> None:
    """If the message were read, an oversized one would give RESOURCE_EXHAUSTED, and an invalid one INTERNAL."""
    method = f"/{SERVICE}/Execute"
    channel: Any  # of bytes
    async with connect(served.address, authority.sign("trainer")) as channel:
        await refused(channel.unary_unary(method)(b"\xff" * 1000, timeout=10))
        call = channel.stream_unary(method)(timeout=10)
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED, "it was answered before anything was sent"
    async with connect(served.address, authority.sign("coordinator")) as channel:
        empty = channel.stream_unary(method)(timeout=10)
        await empty.done_writing()
        assert await empty.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(method)(b"\xff" * 1000, timeout=10)
        assert caught.value.code() is not grpc.StatusCode.PERMISSION_DENIED


async def test_deadlines_and_errors_are_what_they_are_without_lists(served: Served, authority: Authority) -> None:
    async with connect(served.address, authority.sign("client")) as channel:
        stub = rpc.SandboxServiceStub(channel)
        for wish, code in (("bad", "INVALID_ARGUMENT"), ("fault", "INTERNAL"), ("full", "RESOURCE_EXHAUSTED")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Execute(pb.ExecuteRequest(request_id=wish), timeout=10)
            assert caught.value.code().name == code
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Execute(pb.ExecuteRequest(request_id="sleep-30"), timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for _ in range(50):
            detail = (await stub.Execute(pb.ExecuteRequest(request_id="count"), timeout=5)).result.detail
            if "cancelled=1" in detail:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(detail)


async def test_refusals_are_counted_and_logged_with_their_caller(served: Served, authority: Authority) -> None:
    async with connect(served.address, authority.sign("runners")) as channel:
        await refused(rpc.SandboxServiceStub(channel).Execute(EXECUTE, timeout=10))
        await refused_stream(channel)
    address = f"http://127.0.0.1:{served.metrics_port}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(address).read().decode())
    for method in ("Execute", "ExecuteStream"):
        label = f'code="PERMISSION_DENIED",method="/{SERVICE}/{method}"'
        assert f"codealign_grpc_handled_seconds_count{{{label}}} 1.0" in text
    events = [json.loads(line) for line in served.log.read_text().splitlines()]
    denied = [event for event in events if event.get("code") == "PERMISSION_DENIED"]
    assert len(denied) == 2
    assert all("'runners' may not call" in event["message"] for event in denied)


def test_a_misspelt_name_is_an_error_at_the_start() -> None:
    def register(callers: access.Callers, name: str = SERVICE) -> None:
        Registration(name, rpc.add_SandboxServiceServicer_to_server, object(), callers)

    register({"coordinator": ("Execute", "GetRunner"), "client": ALL})
    with pytest.raises(ValueError, match="unknown methods for 'coordinator': Excute; the service has Execute, "):
        register({"coordinator": ("Excute", "GetRunner")})
    with pytest.raises(ValueError, match="unknown methods for"):
        register({"coordinator": "Execute"})  # a text is a sequence of letters
    with pytest.raises(ValueError, match="unknown caller 'cordinator'; known callers: client, console, coordinator"):
        register({"cordinator": ALL})
    with pytest.raises(ValueError, match="unknown caller 'runners'"):
        register({"runners": ("Execute",)})
    with pytest.raises(ValueError, match="unknown gRPC service"):
        register({}, "codealign.api.sandbox.v1.SandBox")


def test_what_is_read_of_a_certificate_is_what_openssl_says(authority: Authority, tmp_path: Path) -> None:
    made = authority.sign("reading", "/O=Ünder/CN=élan/OU=x", days=9000)
    assert made.cert_file
    (read,) = certificates.read(made.cert_file.read_bytes())
    assert read.common_names == ("élan",)
    assert (read.not_after - read.not_before).days == 9000
    assert certificates.why_invalid(read) == ""
    both = made.cert_file.read_bytes() + authority.certificate.read_bytes()
    assert [each.common_names for each in certificates.read(both)] == [("élan",), ("authority",)]
    late = certificates.Certificate((), read.not_after, read.not_after)
    assert "is valid only from 20" in certificates.why_invalid(late)


def test_a_damaged_certificate_is_an_error_and_nothing_else(authority: Authority) -> None:
    made = authority.sign("damaged")
    assert made.cert_file
    der = ssl.PEM_cert_to_DER_cert(made.cert_file.read_text())
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
    for at in range(200):
        for value in (0x00, 0x80, 0xFF):
            changed = der[:at] + bytes([value]) + der[at + 1 :]
            try:
                certificates.read(begin + base64.b64encode(changed) + end)
                certificates.read(begin + base64.b64encode(der[:at]) + end)
            except ValueError:
                pass
