"""The common start-up path, with a real process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.clients import NO_RETRY, Addresses, Clients, ClientTls, RetryPolicy
from codealign.common.errors import describe, retry_delay, violated_fields
from codealign.common.proxies import bypasses_proxy
from tests.pki import Authority

from .conftest import ODD_SERVER, Served, Start, refusal


async def execute(clients: Clients, wish: str, timeout: float = 10, retry: RetryPolicy = NO_RETRY) -> str:
    request = pb.ExecuteRequest(request_id=wish)
    return (await clients.call(clients.sandbox.Execute, request, timeout=timeout, retry=retry)).result.detail


async def failure(clients: Clients, wish: str, timeout: float = 10) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await execute(clients, wish, timeout)
    return caught.value


async def test_errors_carry_what_a_caller_needs(start: Start) -> None:
    async with Clients(Addresses(sandbox=start().address)) as clients:
        bad = await failure(clients, "bad")
        assert bad.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(bad) == ["program.code", "limits.cpu_seconds"]
        full = await failure(clients, "full")
        assert full.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay(full) == 0.25
        fault = await failure(clients, "fault")
        assert fault.code() is grpc.StatusCode.INTERNAL
        assert "KeyError" in describe(fault)


@pytest.mark.parametrize("wish", ["long-not-found", "many-fields"])
async def test_an_error_that_is_longer_than_a_trailer_arrives_with_its_beginning(start: Start, wish: str) -> None:
    async with Clients(Addresses(sandbox=start().address)) as clients:
        for _ in range(20):  # gRPC drops some of the calls with too much metadata, at random
            error = await failure(clients, wish)
            if wish == "many-fields":
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert violated_fields(error)[:2] == ["fields[0]", "fields[1]"]
            else:
                assert error.code() is grpc.StatusCode.NOT_FOUND
                assert describe(error).startswith("there is no 'ééé")


async def test_a_call_is_tried_again_where_its_status_says_so_and_only_there(start: Start) -> None:
    seen: list[str] = []
    async with Clients(
        Addresses(sandbox=start().address), on_retry=lambda method, error: seen.append(error.code().name)
    ) as clients:
        assert (await execute(clients, "twice-away", retry=RetryPolicy())).startswith("calls=3")
        assert seen == ["UNAVAILABLE", "UNAVAILABLE"]
        with pytest.raises(grpc.aio.AioRpcError, match="an isolation check failed"):
            await execute(clients, "precondition", retry=RetryPolicy())
        assert len(seen) == 2


async def test_calls_that_arrive_faster_than_they_begin_are_all_answered(start: Start) -> None:
    async with Clients(Addresses(sandbox=start().address)) as clients:
        await execute(clients, "first")
        blocked = asyncio.create_task(execute(clients, "block-3"))
        answers = await asyncio.gather(*(execute(clients, f"{number}", timeout=60) for number in range(2_000)))
        await blocked
    assert len(answers) == 2_000  # by default gRPC drops some beyond 1,000, with CANCELLED


async def test_a_deadline_reaches_the_server_and_stops_the_work(start: Start) -> None:
    async with Clients(Addresses(sandbox=start().address)) as clients:
        late = await failure(clients, "sleep-30", timeout=0.3)
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "deadline" in describe(late)
        for _ in range(50):
            detail = await execute(clients, "count", timeout=5)
            if "cancelled=1" in detail:
                break
            await asyncio.sleep(0.1)
        assert "cancelled=1" in detail
        assert 4 < float(detail.split("left=")[1]) <= 5


async def test_a_request_id_travels_and_comes_back(start: Start) -> None:
    served = start()
    async with grpc.aio.insecure_channel(served.address) as channel:
        call = channel.unary_unary(
            "/codealign.api.sandbox.v1.SandboxService/Execute",
            request_serializer=pb.ExecuteRequest.SerializeToString,
            response_deserializer=pb.ExecuteResponse.FromString,
        )(pb.ExecuteRequest(request_id="fault"), metadata=(("x-request-id", "r-17"),))
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert ("x-request-id", "r-17") in tuple(await call.trailing_metadata())
    events = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert [event["request_id"] for event in events if event["event"] == "call_failed"] == ["r-17"]


async def health(port: int, service: str) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_liveness_and_readiness_are_apart_on_the_health_port(start: Start) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    ready, waiting = start(), start(ready="false")
    assert await health(ready.health_port, "readiness") == serving
    assert await health(waiting.health_port, "liveness") == serving
    assert await health(waiting.health_port, "readiness") == not_serving
    assert await health(waiting.health_port, "codealign.api.sandbox.v1.SandboxService") == not_serving


async def test_a_stop_drains_readiness_goes_off_and_the_call_in_flight_finishes(start: Start) -> None:
    served = start()
    async with Clients(Addresses(sandbox=served.address)) as clients:
        slow = asyncio.create_task(execute(clients, "sleep-2"))
        await asyncio.sleep(0.7)
        served.process.terminate()
        await asyncio.sleep(0.4)
        assert await health(served.health_port, "readiness") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert "calls=1" in await slow
    assert served.process.wait(10) == 0


async def metrics(served: Served) -> str:
    address = f"http://127.0.0.1:{served.metrics_port}/metrics"
    return await asyncio.to_thread(lambda: urllib.request.urlopen(address).read().decode())


async def test_metrics_have_latency_by_method_and_code(start: Start) -> None:
    served = start()
    async with Clients(Addresses(sandbox=served.address)) as clients:
        await execute(clients, "a")
        await failure(clients, "bad")
    text = await metrics(served)
    method = 'method="/codealign.api.sandbox.v1.SandboxService/Execute"'
    assert f'codealign_grpc_handled_seconds_count{{code="OK",{method}}} 1.0' in text
    assert f'codealign_grpc_handled_seconds_count{{code="INVALID_ARGUMENT",{method}}} 1.0' in text


async def test_reflection_lists_the_service(start: Start) -> None:
    served = start()

    def names() -> list[str]:
        with grpc.insecure_channel(served.address) as channel:
            return list(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert "codealign.api.sandbox.v1.SandboxService" in await asyncio.to_thread(names)


async def test_a_message_over_the_limit_is_refused(start: Start) -> None:
    served = start(max_message_bytes="10000")
    async with Clients(Addresses(sandbox=served.address)) as clients:
        error = await failure(clients, "x" * 20000)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_port_in_use_is_named_with_what_to_do(start: Start) -> None:
    line = refusal(port=str(start().port))
    assert "Address already in use" in line
    assert "choose another port" in line


def test_wrong_settings_are_named() -> None:
    assert "CODEALIGN_ODD_PORT" in refusal(port="70000")
    assert "no TLS certificate" in refusal(host="0.0.0.0")
    assert "must be set together" in refusal(tls_cert_file="a.pem")
    assert "cannot read" in refusal(tls_cert_file="missing.pem", tls_key_file="missing.key")


def test_flags_override_variables_and_wrong_ones_are_named() -> None:
    assert "CODEALIGN_ODD_PORT (--port): Input should be less" in refusal(None, "--port", "70000", port="0")
    assert "unrecognized arguments: --prot" in refusal(None, "--prot", "0")
    told = subprocess.run([sys.executable, str(ODD_SERVER), "--help"], capture_output=True, text=True, check=True)
    assert "--drain-seconds" in told.stdout


async def test_what_a_server_answers_is_not_taken_for_a_broken_connection(start: Start) -> None:
    async with Clients(Addresses(sandbox=start().address)) as clients:
        assert describe(await failure(clients, "unconnected")) == "the database cannot be connected"


def test_a_certificate_that_would_fail_every_handshake_is_refused_at_the_start(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    good, other = authority.server(), authority.server("other")
    expired = refusal(**authority.server("expired", days=-1))
    assert "tls_cert_file: the certificate in " in expired
    assert f"{tmp_path}/expired.crt expired on 20" in expired
    assert "restart" in expired
    mixed = refusal(**good | {"tls_key_file": other["tls_key_file"]})
    assert "tls_key_file: the key in " in mixed
    assert "it belongs to another certificate" in mixed
    (tmp_path / "damaged.crt").write_bytes(
        (tmp_path / "server.crt").read_bytes()[:200] + b"\n-----END CERTIFICATE-----"
    )
    assert "its certificate is damaged" in refusal(**good | {"tls_cert_file": str(tmp_path / "damaged.crt")})
    assert "no PEM certificate" in refusal(**good | {"tls_client_ca_file": good["tls_key_file"]})
    assert "not a PEM private key" in refusal(**good | {"tls_key_file": good["tls_cert_file"]})


async def test_a_certificates_end_is_a_metric_and_there_is_none_without_tls(start: Start, tmp_path: Path) -> None:
    before = time.time() + 86400 * 7
    secure, clear = start(**Authority.make(tmp_path).server(days=7)), start()
    name = "codealign_tls_certificate_expiry_timestamp_seconds{"
    (line,) = [line for line in (await metrics(secure)).splitlines() if line.startswith(name)]
    assert 'common_name="server"' in line
    assert before - 5 < float(line.split()[-1]) < time.time() + 86400 * 7
    assert name not in await metrics(clear)


async def test_mutual_tls_lets_in_who_has_a_certificate(start: Start, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    served = start(**authority.server())
    async with Clients(Addresses(sandbox=served.address), authority.sign("client")) as clients:
        assert "calls=1" in await execute(clients, "a")
    async with Clients(Addresses(sandbox=served.address), ClientTls(authority.certificate)) as clients:
        assert (await failure(clients, "a", timeout=3)).code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )


PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy")


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_what_is_near_is_reached_without_a_proxy(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, secure: bool
) -> None:
    authority = Authority.make(tmp_path) if secure else None
    served = start(**authority.server()) if authority else start()
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    tls = authority.sign("client") if authority else ClientTls()
    async with Clients(Addresses(sandbox=f"{host}:{served.port}"), tls) as clients:
        assert "calls=1" in await execute(clients, "a")


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1:7401", True),
        ("127.8.0.1:7401", True),
        ("localhost:7401", True),
        ("LOCALHOST.:7401", True),
        ("dataset.localhost:7401", True),
        ("[::1]:7401", True),
        ("ipv6:[::1]:7401", True),
        ("ipv6:[fe80::1%25eth0]:7401", True),
        ("ipv4:127.0.0.1:7401,127.0.0.1:7402", True),
        ("dns:///localhost:7401", True),
        ("dns://10.0.0.10/codealign-dataset:7401", True),
        ("dns:localhost:7401", True),
        ("unix:/run/codealign.sock", True),
        ("unix:///run/codealign.sock", True),
        ("0.0.0.0:7401", True),
        ("10.1.2.3:7401", True),
        ("192.168.0.7:7401", True),
        ("172.20.1.1", True),
        ("codealign-dataset:7401", True),
        ("codealign-dataset.codealign.svc:7401", True),
        ("10-1-2-3.runners.codealign.svc.cluster.local:7401", True),
        ("http://127.0.0.1:8000/v1", True),
        ("https://user:secret@localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://vllm:8000/v1", True),
        ("api.openai.com:443", False),
        ("https://api.openai.com/v1", False),
        ("dns:///dataset.example.org:7401", False),
        ("localhost.example.org:443", False),
        ("127.0.0.1.example.org:443", False),
        ("svc.example.org:443", False),
        ("8.8.8.8:443", False),
        ("[2001:4860:4860::8888]:443", False),
    ],
)
def test_a_proxy_is_no_way_to_what_is_near(address: str, near: bool) -> None:
    assert bypasses_proxy(address) is near


async def test_a_client_finds_its_way_back_to_a_server_that_was_away(start: Start) -> None:
    first = start()
    async with Clients(Addresses(sandbox=first.address), retry=RetryPolicy(attempts=0)) as clients:
        await execute(clients, "a")
        first.process.kill()
        first.process.wait()
        call = asyncio.create_task(execute(clients, "b", retry=RetryPolicy(attempts=0)))
        await asyncio.sleep(0.5)
        start(port=str(first.port))
        before = time.monotonic()
        assert "calls=1" in await call
        assert time.monotonic() - before < 10
