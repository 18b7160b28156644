"""Connect to the services that a command needs: by address, from the home directory, or by starting them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar, cast

import grpc

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.child import is_ready
from codealign.cli.failures import Failure, rpc_failure
from codealign.cli.home import Home, HomeInUse
from codealign.cli.launcher import Event, Launcher
from codealign.cli.stack import SERVICES, Options, specs
from codealign.common.clients import Addresses, Clients, ClientTls, RetryPolicy

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_RETRY = RetryPolicy(attempts=4, max_delay=3.0)
_ORPHAN_SECONDS = 20.0
_POLL_SECONDS = 0.5
_PAGE = 500


@dataclass(frozen=True)
class Target:
    """Where a command finds the services."""

    home: Home
    explicit: Mapping[str, str] = field(default_factory=dict)
    """host:port by service, as given by the user."""
    tls: ClientTls = field(default_factory=ClientTls)
    """TLS settings for the explicit addresses. Services on this machine use plaintext on loopback."""


class Connection:
    """Clients of the services. Their errors are raised as failures that name the service.

    Args:
        addresses: host:port by service.
        tls: TLS settings for these addresses.
        started: Whether the services were started for this command only.
    """

    def __init__(self, addresses: Mapping[str, str], tls: ClientTls, *, started: bool) -> None:
        self.addresses = Addresses(**addresses)
        self.clients = Clients(self.addresses, tls, _RETRY)
        self.started = started

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
    ) -> ResponseT:
        """Make a unary call.

        Raises:
            Failure: The call failed.
        """
        try:
            return await self.clients.call(method, request, timeout=timeout, retry=retry)
        except grpc.aio.AioRpcError as error:
            raise self._failure(method, error) from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT], request: RequestT
    ) -> AsyncGenerator[ResponseT, None]:
        """Make a server-streaming call.

        Raises:
            Failure: The call failed.
        """
        try:
            opened = cast(AsyncGenerator[ResponseT, None], self.clients.stream(method, request))
            async with contextlib.aclosing(opened) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AioRpcError as error:
            raise self._failure(method, error) from error

    async def scan(self, request: ds.ScanRequest) -> AsyncGenerator[pb.Record, None]:
        """Yield every record of a scan, page by page.

        Raises:
            Failure: A call failed.
        """
        request.page_size = _PAGE
        while True:
            page = await self.call(self.clients.dataset.Scan, request)
            for record in page.records:
                yield record
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _failure(self, method: object, error: grpc.aio.AioRpcError) -> Failure:
        name = getattr(method, "_method", b"")
        path = name.decode() if isinstance(name, bytes) else str(name)
        service = path.split(".")[2] if path.count(".") > 2 else "?"  # /codealign.api.<service>.v1...
        return rpc_failure(error, service, asdict(self.addresses).get(service, "?"))


@contextlib.asynccontextmanager
async def connected(
    target: Target,
    needs: Sequence[str],
    *,
    options: Options | None,
    on_event: Callable[[Event], None],
    on_wait: Callable[[str], None],
) -> AsyncIterator[Connection]:
    """Connect to services; start them for the duration of the context if they are not running.

    Args:
        target: Where to find the services.
        needs: The required services.
        options: How to start services that are not running. None: do not start any.
        on_event: Called with events of the started services.
        on_wait: Called with a message about what the command waits for.

    Raises:
        Failure: A service is not running and may not be started, or fails to start.
    """
    starting = options is not None and not any(target.explicit.get(name) for name in needs)
    async with contextlib.AsyncExitStack() as stack:
        while True:
            found = await find(target, needs)
            missing = [name for name in needs if name not in found]
            if not missing:
                tls = target.tls if any(target.explicit.get(name) for name in needs) else ClientTls()
                connection = Connection(found, tls, started=False)
                stack.push_async_callback(connection.clients.close)
                yield connection
                return
            if not starting or options is None:
                raise not_up(target, missing)
            try:
                stack.enter_context(target.home.lock())
                break
            except HomeInUse as other:
                on_wait(f"waiting for {', '.join(missing)}: process {other.pid} is starting them in {target.home.root}")
                await asyncio.sleep(_POLL_SECONDS)
        launcher = Launcher(target.home, specs(target.home, options, tuple(needs)), on_event)
        async with running(launcher, target.home, needs) as addresses:
            connection = Connection(addresses, ClientTls(), started=True)
            try:
                yield connection
            finally:
                await connection.clients.close()


@contextlib.asynccontextmanager
async def running(launcher: Launcher, home: Home, names: Sequence[str]) -> AsyncIterator[dict[str, str]]:
    """Run services for the duration of the context, restarting those that die. The caller holds the home's lock.

    Yields:
        host:port by service.

    Raises:
        Failure: A service did not become ready, or keeps failing.
    """
    await _gone(home, names)
    try:
        endpoints = await launcher.start()
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(launcher.supervise())
                yield {name: endpoint.address for name, endpoint in endpoints.items()}
                watch.cancel()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
    finally:
        await launcher.stop()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the most informative error: a Failure if there is one."""
    failures = [error for error in errors.exceptions if isinstance(error, Failure)]
    return failures[0] if failures else errors.exceptions[0]


async def _gone(home: Home, names: Sequence[str]) -> None:
    """Wait until orphaned services have stopped: they must not write beside the new ones."""
    for _ in range(int(_ORPHAN_SECONDS / _POLL_SECONDS)):
        left = {name: endpoint for name in names if (endpoint := home.endpoint(name)) is not None}
        if not left:
            return
        ready = [name for name, endpoint in left.items() if await is_ready(endpoint.health_address)]
        refused = [name for name, endpoint in left.items() if not await _listens(endpoint.health_address)]
        if len(refused) == len(left) and not ready:
            return  # the process ids have been reused by other programs
        await asyncio.sleep(_POLL_SECONDS)
    names_of = ", ".join(f"{name} (process {endpoint.pid})" for name, endpoint in left.items())
    raise Failure(f"orphaned services are still running in {home.root}: {names_of}. Stop these processes first")


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def find(target: Target, names: Sequence[str]) -> dict[str, str]:
    """Return the addresses of services that are given explicitly or running in the home directory."""
    found = {}
    for name in names:
        if target.explicit.get(name):
            found[name] = target.explicit[name]
            continue
        endpoint = target.home.endpoint(name)
        if endpoint is not None and await is_ready(endpoint.health_address):
            found[name] = endpoint.address
    return found


def not_up(target: Target, missing: Sequence[str]) -> Failure:
    """Return the failure for services that are not running."""
    variables = ", ".join(f"CODEALIGN_{name.upper()}_ADDRESS" for name in missing)
    explicit = [name for name in SERVICES if target.explicit.get(name)]
    if explicit:
        return Failure(
            f"addresses are given for {', '.join(explicit)} but not for {', '.join(missing)}: set {variables}"
        )
    return Failure(
        f"not running in {target.home.root}: {', '.join(missing)}. Start the services with `codealign up`, pass their "
        f"--home, or set their addresses ({variables})"
    )
