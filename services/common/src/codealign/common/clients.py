"""Typed async clients of the five services: an address, TLS, a deadline for each call, and retries by status code.

    async with Clients(Addresses(dataset="127.0.0.1:7401")) as clients:
        response = await clients.call(clients.dataset.Append, AppendRequest(...))

The stubs are the generated ones, so every call is typed. `call` and `stream` add a deadline, the caller's request id,
and retries for retryable statuses (UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED). The delay is the one that the server
requested with RetryInfo, or an exponential one with jitter.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
import structlog

from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from codealign.api.training.v1.training_pb2_grpc import TrainingServiceStub
from codealign.common import traces
from codealign.common.errors import ConfigurationError, describe, retry_delay
from codealign.common.interceptors import REQUEST_ID_HEADER
from codealign.common.logs import get_logger
from codealign.common.proxies import bypasses_proxy

if TYPE_CHECKING:  # the async stubs exist only as types
    from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceAsyncStub
    from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceAsyncStub
    from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub
    from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceAsyncStub
    from codealign.api.training.v1.training_pb2_grpc import TrainingServiceAsyncStub

log = get_logger(__name__)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED})

KEEPALIVE_MS = 10_000
"""Interval of pings while a call waits. Servers must permit it; see `server.MIN_PING_INTERVAL_MS`."""
KEEPALIVE_TIMEOUT_MS = 5_000
"""A ping without a reply for this long ends the connection."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how fast a call is retried."""

    attempts: int = 6
    """Maximum number of attempts. 0: no limit, as in the coordinator, which waits for unavailable services."""
    first_delay: float = 0.2
    """Seconds before the second attempt. Doubled after each, and half of the delay is random."""
    max_delay: float = 10.0
    """Maximum seconds between two attempts."""
    codes: frozenset[grpc.StatusCode] = RETRYABLE
    """Statuses that are retried."""

    def delay(self, tried: int, error: grpc.aio.AioRpcError) -> float:
        """Return the seconds to wait after `tried` attempts: as the server requested, or exponential."""
        asked = retry_delay(error)
        backoff = min(self.max_delay, self.first_delay * 2.0 ** min(tried - 1, 16))
        return asked if asked is not None else backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def gives_up(self, tried: int, error: grpc.aio.AioRpcError) -> bool:
        """Return whether no further attempt is made."""
        return error.code() not in self.codes or (self.attempts > 0 and tried >= self.attempts)


NO_RETRY = RetryPolicy(attempts=1)


@dataclass(frozen=True)
class ClientTls:
    """PEM files of a client. Without any, the connection is not encrypted (loopback)."""

    ca_file: Path | None = None
    """CA certificates that must have signed the server's certificate."""
    cert_file: Path | None = None
    """The client's certificate chain, for mutual TLS."""
    key_file: Path | None = None
    """The client's private key."""

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return channel credentials, or None for an unencrypted connection."""
        if self.ca_file is None and self.cert_file is None:
            return None
        try:
            read = [path.read_bytes() if path else None for path in (self.ca_file, self.key_file, self.cert_file)]
        except OSError as error:
            raise ConfigurationError(f"TLS: cannot read {error.filename} ({error.strerror})") from None
        return grpc.ssl_channel_credentials(*read)


@dataclass(frozen=True)
class Addresses:
    """host:port of each service. Empty: not used."""

    inference: str = ""
    sandbox: str = ""
    dataset: str = ""
    training: str = ""
    coordinator: str = ""


def connect(
    address: str,
    tls: ClientTls | None = None,
    *,
    max_message_bytes: int = 64 * 2**20,
    more_options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """Return a channel that reconnects within a second or two after the server was unavailable.

    If a server disappears without closing the connection (its node fails, it is suspended, a cable is cut), a call
    fails with UNAVAILABLE after KEEPALIVE_MS plus KEEPALIVE_TIMEOUT_MS.

    Args:
        address: host:port.
        tls: If it has files, the connection is encrypted.
        max_message_bytes: Maximum size of a message, in both directions.
        more_options: gRPC channel options that override the defaults.
    """
    credentials, options = _channel_options(address, tls, max_message_bytes, more_options)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def connect_blocking(address: str, tls: ClientTls | None = None) -> grpc.Channel:
    """Return the same channel as `connect` for callers without an event loop."""
    credentials, options = _channel_options(address, tls, 64 * 2**20, ())
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def _channel_options(
    address: str, tls: ClientTls | None, max_message_bytes: int, more_options: Sequence[tuple[str, Any]]
) -> tuple[grpc.ChannelCredentials | None, list[tuple[str, Any]]]:
    options: dict[str, Any] = {
        "grpc.max_send_message_length": max_message_bytes,
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.min_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 2000,
        "grpc.enable_retries": 0,  # ours honours RetryInfo, gRPC's does not
        # Otherwise equal targets would share one connection and its back-off.
        "grpc.use_local_subchannel_pool": 1,
        # Only during calls: third-party servers treat pings on an idle connection as an attack.
        "grpc.keepalive_time_ms": KEEPALIVE_MS,
        "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
        "grpc.http2.max_pings_without_data": 0,  # a call may be silent for an hour
        **dict(more_options),
    }
    credentials = tls.credentials() if tls else None
    if credentials is None or bypasses_proxy(address):
        # gRPC would use the proxy of `https_proxy` or `http_proxy`, even for loopback. Unencrypted connections never
        # use a proxy.
        options["grpc.enable_http_proxy"] = 0
    return credentials, list(options.items())


@dataclass
class Clients:
    """Stubs of every service, over channels that are opened on first use."""

    addresses: Addresses
    tls: ClientTls = field(default_factory=ClientTls)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    on_retry: Callable[[str, grpc.aio.AioRpcError], None] | None = None
    """Called with the service's method and the error before each retry."""
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def channel(self, service: str) -> grpc.aio.Channel:
        """Return the channel to a service, given its short name."""
        if service not in self._channels:
            address = getattr(self.addresses, service)
            if not address:
                raise ConfigurationError(f"{service} service address is not configured")
            self._channels[service] = connect(address, self.tls)
        return self._channels[service]

    @property
    def inference(self) -> InferenceServiceAsyncStub:
        """Stub for text generation."""
        return InferenceServiceStub(self.channel("inference"))

    @property
    def sandbox(self) -> SandboxServiceAsyncStub:
        """Stub for execution."""
        return SandboxServiceStub(self.channel("sandbox"))

    @property
    def dataset(self) -> DatasetServiceAsyncStub:
        """Stub for records."""
        return DatasetServiceStub(self.channel("dataset"))

    @property
    def training(self) -> TrainingServiceAsyncStub:
        """Stub for fine-tuning."""
        return TrainingServiceStub(self.channel("training"))

    @property
    def coordinator(self) -> CoordinatorServiceAsyncStub:
        """Stub for runs."""
        return CoordinatorServiceStub(self.channel("coordinator"))

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
    ) -> ResponseT:
        """Make a unary call.

        Args:
            method: A method of a stub, such as `clients.dataset.Append`.
            request: The request.
            timeout: Seconds for each attempt.
            retry: Overrides the clients' retry policy.

        Raises:
            grpc.aio.AioRpcError: The error of the last attempt.
        """
        policy = retry or self.retry
        tried = 0
        while True:
            tried += 1
            try:
                with traced(method) as metadata:
                    return await method(request, timeout=timeout, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if policy.gives_up(tried, error):
                    raise
                await self._wait(method, policy, tried, error)

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> AsyncGenerator[ResponseT]:
        """Make a server-streaming call. Retried only until the first message arrives.

        Raises:
            grpc.aio.AioRpcError: The error of the last attempt, or one after the first message.
        """
        policy = retry or self.retry
        tried = 0
        while True:
            tried += 1
            started = False
            try:
                with traced(method) as metadata:
                    call = method(request, timeout=timeout, metadata=metadata)
                    try:
                        async for response in call:
                            started = True
                            yield response
                        return
                    finally:
                        call.cancel()
            except grpc.aio.AioRpcError as error:
                if started or policy.gives_up(tried, error):
                    raise
                await self._wait(method, policy, tried, error)

    async def _wait(self, method: object, policy: RetryPolicy, tried: int, error: grpc.aio.AioRpcError) -> None:
        text = _name(method)
        delay = policy.delay(tried, error)
        log.info("retry", method=text, code=error.code().name, tried=tried, delay=round(delay, 2))
        if self.on_retry:
            self.on_retry(text, error)
        await asyncio.sleep(delay)

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@contextlib.contextmanager
def traced(method: object) -> Iterator[tuple[tuple[str, str], ...]]:
    """Record a call's span, and yield the metadata that carries its context and the request id."""
    call = traces.start_call(_name(method), traces.SpanKind.CLIENT)
    code, message = "OK", ""
    try:
        yield _metadata(call)
    except grpc.aio.AioRpcError as error:
        code, message = error.code().name, describe(error)
        raise
    except BaseException:
        code = "CANCELLED"
        raise
    finally:
        traces.end_call(call, code, message)


def _metadata(call: traces.Span) -> tuple[tuple[str, str], ...]:
    """Return the metadata that propagates the request id and trace."""
    bound: Mapping[str, Any] = structlog.contextvars.get_contextvars()
    sent = traces.outgoing(call)
    if request_id := bound.get("request_id"):
        sent[REQUEST_ID_HEADER] = str(request_id)
    return tuple(sent.items())


def _name(method: object) -> str:
    name = getattr(method, "_method", b"")
    return name.decode() if isinstance(name, bytes) else str(name)
