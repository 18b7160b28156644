"""The chart's generated certificates in a real TLS handshake."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from codealign.cli.certificate import CLIENT_SELECTOR, Release
from codealign.cli.commands.certificate import LOCAL_PORTS
from codealign.cli.stack import service_package
from tests.charts.rendered import FULL, NAMESPACE, RELEASE, rendered

Pem = dict[str, bytes]


def certificate(case: str, component: str) -> Pem:
    (found,) = (each for each in rendered(case).of("Secret") if each["metadata"]["name"] == f"{FULL}-{component}-tls")
    return {name: base64.b64decode(value) for name, value in found["data"].items()}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server with the runners' certificate that requires client certificates."""
    pem = certificate("gpu-single", "runners")
    server = grpc.server(futures.ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(pem["tls.key"], pem["tls.crt"])], pem["ca.crt"], True)
    bound = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield bound
    server.stop(None)


def connects(port: int, pem: Pem, name: str, *, authority: bytes | None = None, anonymous: bool = False) -> bool:
    own = (None, None) if anonymous else (pem["tls.key"], pem["tls.crt"])
    credentials = grpc.ssl_channel_credentials(authority or pem["ca.crt"], *own)
    options = [("grpc.ssl_target_name_override", name)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        try:
            call = channel.unary_unary("/nobody/Knows", request_serializer=bytes, response_deserializer=bytes)
            call(b"", timeout=3)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.UNIMPLEMENTED
    return True


def test_every_member_of_the_release_is_let_in_under_every_name_of_the_server(port: int) -> None:
    for component in ("sandbox", "keda", "client", "operator"):
        assert connects(port, certificate("gpu-single", component), f"{FULL}-runners")
    own = certificate("gpu-single", "sandbox")
    assert connects(port, own, f"{FULL}-runners.{NAMESPACE}.svc")
    assert connects(port, own, "localhost")


def test_strangers_and_wrong_names_are_not(port: int) -> None:
    own = certificate("gpu-single", "sandbox")
    assert not connects(port, own, f"{FULL}-runners", anonymous=True)
    assert not connects(port, own, f"{FULL}-dataset")
    stranger = certificate("defaults", "sandbox")
    assert not connects(port, stranger, f"{FULL}-runners", authority=own["ca.crt"])
    assert not connects(port, stranger, f"{FULL}-runners")


def test_the_key_of_the_authority_is_in_no_pod() -> None:
    for case in ("defaults", "cert-manager"):
        for pod in rendered(case).pods():
            assert "authority" not in str(pod.spec)


@pytest.mark.parametrize("case", ["defaults", "cert-manager"])
def test_the_command_line_finds_a_persons_certificate_and_the_services(case: str) -> None:
    chart = rendered(case)
    templates = {each["spec"]["secretName"]: each["spec"].get("secretTemplate") for each in chart.of("Certificate")}
    labels = {each["metadata"]["name"]: each["metadata"]["labels"] for each in chart.of("Secret")}
    labels |= {name: template["labels"] for name, template in templates.items() if template}
    wanted = dict(each.split("=") for each in CLIENT_SELECTOR.split(","))
    wanted["app.kubernetes.io/instance"] = RELEASE
    assert [name for name, its in labels.items() if wanted.items() <= its.items()] == [Release(RELEASE).secret]
    ports = {each["metadata"]["name"]: [port["port"] for port in each["spec"]["ports"]] for each in chart.of("Service")}
    assert all(7400 in ports[f"{FULL}-{service_package(service)}"] for service in LOCAL_PORTS)
