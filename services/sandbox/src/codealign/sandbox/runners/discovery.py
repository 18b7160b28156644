"""Discovers runners that are started elsewhere: every address of one name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import NamedTuple

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.sandbox.pool import Backend, Pool

_SCHEME = "dns:///"
_NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)
"""Errors of a name without addresses: a headless Service whose pods are all gone."""

log = get_logger(__name__)


class Target(NamedTuple):
    """A host name and port to resolve."""

    host: str
    port: int


def parse(text: str) -> Target:
    """Parse the target in a setting.

    Raises:
        ConfigurationError: The text is not a valid target.
    """
    host, _, port = text.removeprefix(_SCHEME).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigurationError(
            f"CODEALIGN_SANDBOX_RUNNER_TARGET: must be host:port or dns:///host:port, got {text!r}"
        )
    return Target(host.strip("[]"), int(port))


class Discovery:
    """Keeps a pool's places equal to the addresses of a name.

    Args:
        target: The name.
        pool: Gets a place for each address.
        backend_at: Returns the backend for an address.
        resolve_seconds: Seconds between two look-ups.
        drain_seconds: How long jobs may run on at an address that is gone.
    """

    def __init__(
        self,
        target: Target,
        pool: Pool,
        backend_at: Callable[[str], Backend],
        resolve_seconds: float,
        drain_seconds: float,
    ) -> None:
        self._target = target
        self._pool = pool
        self._backend_at = backend_at
        self._resolve_seconds = resolve_seconds
        self._drain_seconds = drain_seconds
        self._missed: set[str] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Resolve the name forever."""
        while True:
            try:
                self.update(await self._resolve())
            except OSError as error:
                # A failed look-up does not mean that an address is gone.
                log.warning("runners_not_resolved", host=self._target.host, error=str(error))
            except Exception:
                log.exception("runners_not_found", host=self._target.host)
            await asyncio.sleep(self._resolve_seconds)

    def update(self, addresses: set[str]) -> None:
        """Process the result of a look-up. An address is given up when two consecutive results lack it."""
        for address in sorted(addresses - self._pool.places):
            log.info("runner_found", address=address)
            self._pool.keep(address, self._backend_at(address))
        missing = self._pool.places - addresses
        for address in sorted(missing & self._missed):
            log.info("runner_vanished", address=address)
            leaving = asyncio.create_task(self._pool.drop(address, self._drain_seconds))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._missed = missing - self._missed

    async def _resolve(self) -> set[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(*self._target, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                return set()
            raise
        hosts = {str(address[0]) for *_, address in found}
        return {f"[{host}]:{self._target.port}" if ":" in host else f"{host}:{self._target.port}" for host in hosts}
