"""Entry point of the console as a service, and the server that the command line starts too."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from codealign.common import logs
from codealign.common.clients import ClientTls
from codealign.common.errors import EXIT_CONFIGURATION, ConfigurationError
from codealign.common.settings import load
from codealign.console.admission import PeopleOnly
from codealign.console.app import application
from codealign.console.reading import READ, Services
from codealign.console.settings import ConsoleSettings


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle only on sockets that say they are TCP: a page would wait 40 ms for an acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise ConfigurationError(f"port {port} on {host} cannot be used ({error}): choose another port") from None
    return bound


async def serve(
    services: Services,
    bound: socket.socket,
    *,
    names: frozenset[str],
    certificate: tuple[Path | None, Path | None, Path | None] = (None, None, None),
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until stopped by a signal or cancelled.

    Args:
        services: The services to read from.
        bound: The socket to listen on.
        names: Host names that requests may name.
        certificate: Certificate chain, its key, and the CA of the certificates that browsers must have; their common
            name must be that of people.
        on_ready: Called once it answers.
    """
    chain, key, authority = certificate
    config = uvicorn.Config(
        application(services, names),
        http=PeopleOnly if authority else "auto",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=3,
        ssl_certfile=chain,
        ssl_keyfile=key,
        ssl_ca_certs=str(authority) if authority else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if authority else ssl.CERT_NONE,
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[bound]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)
        if server.started:
            on_ready()
        await asyncio.wait({task})
    except asyncio.CancelledError:
        server.should_exit = True
        await asyncio.wait({task})
        raise
    await task


def main() -> None:
    """Serve until stopped."""
    try:
        settings = load(ConsoleSettings, "codealign-console")
        logs.configure("console", settings.log_level, settings.log_format)
        addresses = {name: found for name in READ if (found := getattr(settings, f"{name}_address"))}
        tls = ClientTls(settings.client_ca_file, settings.client_cert_file, settings.client_key_file)
        tls.credentials()  # files that cannot be read are reported now
        log = logs.get_logger(__name__)
        bound = listen(settings.host, settings.port)
        asyncio.run(
            serve(
                Services(lambda: addresses, tls),
                bound,
                names=settings.names,
                certificate=(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file),
                on_ready=lambda: log.info("serving", port=bound.getsockname()[1]),
            )
        )
    except ConfigurationError as error:
        print(f"codealign-console: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)
    except (OSError, ssl.SSLError) as error:
        print(f"codealign-console: the TLS files cannot be used: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)


if __name__ == "__main__":
    main()
