"""The caller and deadline that the dispatcher receives from gRPC."""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common.clients import ClientTls, connect
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.pool import Pool
from codealign.sandbox.servicer import SandboxServicer

from .conftest import request


class Listening(Dispatcher):
    """Records the callers, and answers."""

    def __init__(self) -> None:
        super().__init__(10, 1)
        self.callers: list[str] = []
        self.seconds: list[float] = []

    async def execute(self, request: pb.ExecuteRequest, caller: str = "", seconds: float = math.inf) -> pb.Result:
        self.callers.append(caller)
        self.seconds.append(seconds)
        return pb.Result(request_id=request.request_id)


class Open(Pool):
    """Accepts everything."""

    def __init__(self) -> None:
        pass

    def check(self) -> None:
        pass


@contextlib.asynccontextmanager
async def serving(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[tuple[Listening, str]]:
    server, dispatcher = grpc.aio.server(), Listening()
    rpc.add_SandboxServiceServicer_to_server(SandboxServicer(dispatcher, Open(), 8), server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield dispatcher, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def execute(channel: grpc.aio.Channel, timeout: float | None = None) -> None:
    await rpc.SandboxServiceStub(channel).Execute(pb.ExecuteRequest(program=pb.Program(code="x")), timeout=timeout)


async def test_without_certificates_a_connection_is_a_caller() -> None:
    async with serving() as (dispatcher, address):
        async with connect(address) as one, connect(address) as two:
            for channel in (one, one, two):
                await execute(channel)
        first, second, other = dispatcher.callers
        assert first == second != other


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (tmp_path / "server.san").write_text("subjectAltName=IP:127.0.0.1")
    (tmp_path / "coordinator.san").write_text("subjectAltName=DNS:coordinator.codealign")
    for name in ("server", "coordinator"):
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", f"{name}.san")
        openssl(*sign, "-in", f"{name}.csr", "-out", f"{name}.pem")
    return tmp_path


async def test_a_certificates_name_is_one_caller_over_all_its_connections(pki: Path) -> None:
    key, certificate, authority = ((pki / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem"))
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
    tls = ClientTls(pki / "ca.pem", pki / "coordinator.pem", pki / "coordinator.key")
    async with serving(credentials) as (dispatcher, address):
        async with connect(address, tls) as one, connect(address, tls) as two:
            await execute(one)
            await execute(two)
        assert dispatcher.callers == ["coordinator.codealign"] * 2


async def test_the_deadline_of_a_call_is_passed_on() -> None:
    async with serving() as (dispatcher, address), connect(address) as channel:
        await execute(channel)
        await execute(channel, timeout=50)
        none, some = dispatcher.seconds
        assert none == math.inf
        assert 0 < some < 60, "gRPC rounds a little"


async def test_every_request_of_a_stream_has_its_caller_and_deadline() -> None:
    def requests() -> Iterator[pb.ExecuteStreamRequest]:
        for number in range(3):
            yield pb.ExecuteStreamRequest(request=request("x", request_id=str(number)))

    async with serving() as (dispatcher, address), connect(address) as channel:
        call = rpc.SandboxServiceStub(channel).ExecuteStream(requests(), timeout=50)
        results = [response.result.request_id async for response in call]
        assert sorted(results) == ["0", "1", "2"]
        assert len(set(dispatcher.callers)) == 1
        assert all(0 < seconds < 60 for seconds in dispatcher.seconds)
