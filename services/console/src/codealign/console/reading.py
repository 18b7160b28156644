"""Reads from the services: with a deadline, without retries, and with failures that a page can show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import grpc

from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.common.clients import NO_RETRY, ClientTls, RetryPolicy
from codealign.common.errors import ConfigurationError

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
T = TypeVar("T")

READ = ("coordinator", "dataset", "training")
"""Services that the console reads from."""
DEADLINE_SECONDS = 5.0
"""Deadline of every call: a page that takes longer says which service was too slow."""

PART_SECONDS = 15.0
"""Deadline of a part of a page that takes several calls."""
CLOSE_SECONDS = 120.0
"""How long connections to former addresses stay open, because pages may still read through them."""

Locate = Callable[[], Mapping[str, str]]
"""Returns host:port by service, without those that are not running."""

_ABSENT = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


class ServiceFailure(Failure):
    """A call failed. The message names the service."""

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code


class NotThere(Exception):
    """What the address names does not exist; the message says why."""


class Reader(Connection):
    """Clients of the services that only read.

    Args:
        addresses: host:port by service.
        tls: TLS settings for these addresses.
    """

    def __init__(self, addresses: Mapping[str, str], tls: ClientTls) -> None:
        super().__init__(addresses, tls, started=False)
        self.clients.retry = NO_RETRY

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float = DEADLINE_SECONDS,
        retry: RetryPolicy | None = None,
    ) -> ResponseT:
        """Make a unary call.

        Raises:
            ServiceFailure: The call failed.
        """
        return await super().call(method, request, timeout=min(timeout, DEADLINE_SECONDS), retry=retry)

    def _failure(self, method: object, error: grpc.aio.AioRpcError) -> Failure:
        failure = super()._failure(method, error)
        code = error.code()
        if code is grpc.StatusCode.UNIMPLEMENTED:
            name = getattr(method, "_method", b"")
            called = (name.decode() if isinstance(name, bytes) else str(name)).rpartition("/")[2]
            return ServiceFailure(
                f"the {_service(failure)} service does not know {called}: it is of another version", code
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServiceFailure(f"the {_service(failure)} service did not answer within {DEADLINE_SECONDS:g} s", code)
        return ServiceFailure(failure.message, code)


def _service(failure: Failure) -> str:
    return failure.message.partition(" ")[0]


class Services:
    """The services where they are now: a restarted service may have another address.

    Args:
        locate: Finds them.
        tls: TLS settings for their addresses.
    """

    def __init__(self, locate: Locate, tls: ClientTls | None = None) -> None:
        self._locate, self._tls = locate, tls or ClientTls()
        self._addresses: Mapping[str, str] | None = None
        self._reader = Reader({}, self._tls)
        self._closing: set[asyncio.Task[None]] = set()

    def reader(self) -> Reader:
        """Return clients of the services as they are now."""
        found = dict(self._locate())
        if found != self._addresses:
            task = asyncio.get_running_loop().create_task(_close_later(self._reader))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._addresses, self._reader = found, Reader(found, self._tls)
        return self._reader

    async def close(self) -> None:
        """Close every connection."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, self._reader.clients.close(), return_exceptions=True)


async def _close_later(reader: Reader) -> None:
    """Close a reader's connections when the pages that use it are done."""
    try:
        await asyncio.sleep(CLOSE_SECONDS)
    finally:
        await reader.clients.close()


@dataclass
class Gathering:
    """What one page reads. A part that cannot be read is left out, and the page says why."""

    reader: Reader
    problems: list[str] = field(default_factory=list)
    """Messages for people, each once."""

    async def part(self, read: Callable[[Reader], Awaitable[T]], *, named: bool = False) -> T | None:
        """Return a part of the page, or None if it cannot be read.

        Args:
            read: Reads it.
            named: The address of the page names it: if it does not exist, neither does the page.

        Raises:
            NotThere: It does not exist, and `named` is set.
        """
        try:
            async with asyncio.timeout(PART_SECONDS):
                return await read(self.reader)
        except ServiceFailure as failure:
            if named and failure.code in _ABSENT:
                raise NotThere(failure.message) from None
            self._add(failure.message)
        except TimeoutError:
            self._add(f"A part of this page took more than {PART_SECONDS:g} s and is left out.")
        except Failure as failure:  # what was read does not make sense
            self._add(failure.message)
        except ConfigurationError as error:  # the service is not running, so it has no address
            self._add(str(error))
        return None

    def _add(self, message: str) -> None:
        for service in READ:
            if message == f"{service} service address is not configured":
                message = f"The {service} service is not running or not configured."
        if message not in self.problems:
            self.problems.append(message)


async def first(stream: AsyncGenerator[T, None], most: int) -> list[T]:
    """Return at most this many items of a stream."""
    found: list[T] = []
    async for item in stream:
        found.append(item)
        if len(found) == most:
            break
    await stream.aclose()
    return found
