"""Discovers servers that are started elsewhere: every address of one or several names."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger

_SCHEME = "dns:///"
_NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)
"""Errors of a name without addresses: a headless Service whose pods are all gone."""

log = get_logger(__name__)


class Target(NamedTuple):
    """A host name and port to resolve."""

    host: str
    port: int


def parse(text: str, setting: str) -> Target:
    """Parse the target in a setting.

    Args:
        text: host:port or dns:///host:port.
        setting: The setting's environment variable, for the error.

    Raises:
        ConfigurationError: The text is not a valid target.
    """
    host, _, port = text.strip().removeprefix(_SCHEME).rpartition(":")
    if not _may_be_host(host) or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigurationError(f"{setting}: must be host:port or dns:///host:port, got {text!r}")
    return Target(host.strip("[]"), int(port))


def _may_be_host(text: str) -> bool:
    """Return whether a text can be looked up. A URL, for example, would only be a name without addresses, for ever."""
    try:
        return bool(text.encode("idna")) and not re.search(r"[\s/]", text)
    except UnicodeError:  # an empty or too long part between two dots
        return False


class Places(Protocol):
    """What is kept at the addresses that are found."""

    @property
    def places(self) -> set[str]:
        """The addresses that are in use."""

    def keep(self, address: str) -> None:
        """Start to use the server at an address. Returns immediately."""

    async def drop(self, address: str, drain_seconds: float) -> None:
        """Give up an address. What runs there may finish for at most `drain_seconds`."""


class Discovery:
    """Keeps places equal to the addresses of names.

    Args:
        targets: The names.
        places: Gets each address.
        resolve_seconds: Seconds between two look-ups.
        drain_seconds: How long work may run on at an address that is gone.
    """

    def __init__(self, targets: Sequence[Target], places: Places, resolve_seconds: float, drain_seconds: float) -> None:
        self._targets = targets
        self._places = places
        self._resolve_seconds = resolve_seconds
        self._drain_seconds = drain_seconds
        self._missed: set[str] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self.looked_up = asyncio.Event()
        """Set when all names have been resolved."""

    async def run(self) -> None:
        """Resolve the names forever."""
        while True:
            try:
                await self._look_up()
            except Exception:
                log.exception("addresses_not_found", hosts=self._hosts())
            await asyncio.sleep(self._resolve_seconds)

    async def _look_up(self) -> None:
        results = await asyncio.gather(*map(_resolve, self._targets), return_exceptions=True)
        found: set[str] = set()
        is_complete = True
        for target, result in zip(self._targets, results, strict=True):
            if isinstance(result, OSError):
                log.warning("name_not_resolved", host=target.host, error=str(result))
                is_complete = False
            elif isinstance(result, BaseException):
                raise result
            else:
                found |= result
        if is_complete:
            self.update(found)
            self.looked_up.set()
        else:  # A failed look-up does not mean that an address is gone, nor that those of other names are.
            self.update(found | self._places.places)

    def update(self, addresses: set[str]) -> None:
        """Process the result of a look-up. An address is given up when two consecutive results lack it."""
        for address in sorted(addresses - self._places.places):
            log.info("address_found", address=address)
            self._places.keep(address)
        missing = self._places.places - addresses
        for address in sorted(missing & self._missed):
            log.info("address_vanished", address=address)
            leaving = asyncio.create_task(self._places.drop(address, self._drain_seconds))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._missed = missing - self._missed

    def _hosts(self) -> str:
        return ", ".join(target.host for target in self._targets)


async def _resolve(target: Target) -> set[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(*target, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            return set()
        raise
    hosts = {str(address[0]) for *_, address in found}
    return {f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}" for host in hosts}
