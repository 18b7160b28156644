"""The console as a process: client certificates, settings that would let everybody in, `codealign console`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from codealign.cli.commands import console as command
from codealign.cli.connection import Target
from codealign.cli.home import Home
from codealign.common.clients import ClientTls
from codealign.common.errors import ConfigurationError
from codealign.common.settings import LOOPBACK, load
from codealign.console import main
from codealign.console.reading import READ, Services
from codealign.console.settings import ConsoleSettings
from tests.pki import Authority


@contextlib.asynccontextmanager
async def served(own: ClientTls) -> AsyncIterator[int]:
    """Serve with a certificate; browsers need one of the same authority."""
    bound, ready = main.listen("127.0.0.1", 0), asyncio.Event()
    serving = asyncio.create_task(
        main.serve(
            Services(dict),
            bound,
            names=frozenset(LOOPBACK),
            certificate=(own.cert_file, own.key_file, own.ca_file),
            on_ready=ready.set,
        )
    )
    await ready.wait()
    yield bound.getsockname()[1]
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def test_a_browser_needs_a_persons_certificate_of_the_releases_authority(tmp_path: Path) -> None:
    authority, other = Authority.make(tmp_path / "own"), Authority.make(tmp_path / "other")
    person, stranger = authority.sign("client"), other.sign("client")

    async def opened(port: int, who: ClientTls | None) -> int:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        if who is not None:
            context.load_cert_chain(str(who.cert_file), str(who.key_file))
        async with httpx2.AsyncClient(verify=context) as browser:
            return (await browser.get(f"https://localhost:{port}/")).status_code

    async with served(authority.sign("console")) as port:
        assert await opened(port, person) == 200
        for refused in (None, stranger):
            with pytest.raises(httpx2.HTTPError):
                await opened(port, refused)
        component = authority.sign("sandbox")
        two_names = authority.sign("two", subject="/CN=client/CN=sandbox")
        for refused in (component, two_names):
            assert await opened(port, refused) == 403


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"HOST": "0.0.0.0"}, "everyone could read the console"),
        ({"TLS_CERT_FILE": "/a.crt"}, "must be set together"),
        ({"TLS_CLIENT_CA_FILE": "/ca.crt"}, "requires tls_cert_file"),
        ({"PORT": "65536"}, "CODEALIGN_CONSOLE_PORT"),
    ],
)
def test_settings_that_would_let_everybody_in_are_refused(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"CODEALIGN_CONSOLE_{name}", value)
    with pytest.raises(ConfigurationError, match=told):
        load(ConsoleSettings)


def test_a_port_in_use_is_a_clear_error() -> None:
    with contextlib.closing(main.listen("127.0.0.1", 0)) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} on 127.0.0.1 cannot be used"):
            main.listen("127.0.0.1", port)


def test_the_command_finds_services_of_the_home_as_they_are_now(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    where = Target(home)
    assert command.addresses(where) == {}
    ports = '{"host": "127.0.0.1", "port": 71, "health_port": 72, "metrics_port": 73, "pid": 1}'
    home.endpoint_file("dataset").write_text(ports)
    assert command.addresses(where) == {"dataset": "127.0.0.1:71"}
    assert command.addresses(Target(home, {"coordinator": "there:7400"})) == {"coordinator": "there:7400"}
    assert set(command.READ) == set(READ)


def test_a_page_does_not_wait_for_an_acknowledgement_of_its_head() -> None:
    """Asyncio switches Nagle's algorithm off only on sockets that name their protocol."""
    with contextlib.closing(main.listen("127.0.0.1", 0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP
