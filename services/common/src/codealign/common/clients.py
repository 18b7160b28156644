"""Typed async clients of the five services: an address, TLS, a deadline for each call, retries by status code.

    async with Clients(Addresses(dataset="127.0.0.1:7401")) as clients:
        response = await clients.call(clients.dataset.Append, AppendRequest(...))

The stubs are the generated ones, so every call is typed. `call` and `stream` add what a bare stub lacks: a
deadline, the caller's request id, and another try for the statuses that say so (UNAVAILABLE, RESOURCE_EXHAUSTED,
ABORTED), after the delay that the server asked for with RetryInfo, or after an exponential one with jitter.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
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
from codealign.common.errors import ConfigurationError, retry_delay
from codealign.common.interceptors import REQUEST_ID_HEADER, TRACE_HEADER
from codealign.common.logs import get_logger
from codealign.common.proxies import is_near

if TYPE_CHECKING:  # the async stubs are types alone
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
"""Between two pings of a connection that a call waits on. A server must permit them: `server.MIN_PING_INTERVAL_MS`."""
KEEPALIVE_TIMEOUT_MS = 5_000
"""A ping that is not answered for so long ends the connection."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a call is tried again."""

    attempts: int = 6
    """Tries in all. 0: for ever, as the coordinator does, to which a service that is away is no failure."""
    first_delay: float = 0.2
    """Seconds before the second try; doubled after each, with half of it random."""
    max_delay: float = 10.0
    """Seconds between two tries at most."""
    codes: frozenset[grpc.StatusCode] = RETRYABLE
    """Statuses that are tried again."""

    def delay(self, tried: int, error: grpc.aio.AioRpcError) -> float:
        """Seconds to wait after so many tries: what the server asked for, or the exponential delay."""
        asked = retry_delay(error)
        backoff = min(self.max_delay, self.first_delay * 2.0 ** min(tried - 1, 16))
        return asked if asked is not None else backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def gives_up(self, tried: int, error: grpc.aio.AioRpcError) -> bool:
        """No further try."""
        return error.code() not in self.codes or (self.attempts > 0 and tried >= self.attempts)


NO_RETRY = RetryPolicy(attempts=1)


@dataclass(frozen=True)
class ClientTls:
    """PEM files of the client's side; with none of them the connection is in the clear (loopback)."""

    ca_file: Path | None = None
    """Authorities that the server's certificate must come from."""
    cert_file: Path | None = None
    """The client's own certificate chain, for mutual TLS."""
    key_file: Path | None = None
    """Its private key."""

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Channel credentials, or None for a connection in the clear."""
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
    """A channel that finds its way back after the server was away, within a second or two.

    A server that vanishes without a word (its node dies, it is stopped, a cable) is noticed within KEEPALIVE_MS and
    KEEPALIVE_TIMEOUT_MS of a call: the call fails with UNAVAILABLE.

    Args:
        address: host:port.
        tls: With files in it the connection is encrypted.
        max_message_bytes: Size of one message, in both directions.
        more_options: gRPC's channel options, in place of these.
    """
    options: dict[str, Any] = {
        "grpc.max_send_message_length": max_message_bytes,
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.min_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 2000,
        "grpc.enable_retries": 0,  # ours reads RetryInfo, gRPC's own does not
        # Equal targets would otherwise share one connection, and one's back-off with it.
        "grpc.use_local_subchannel_pool": 1,
        # Without calls nobody waits for an answer, and servers of others take such pings for an attack.
        "grpc.keepalive_time_ms": KEEPALIVE_MS,
        "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
        "grpc.http2.max_pings_without_data": 0,  # a call may be silent for an hour
        **dict(more_options),
    }
    credentials = tls.credentials() if tls else None
    if credentials is None or is_near(address):
        # gRPC would use the proxy of `https_proxy` or `http_proxy`, for loopback too. What is in the clear takes none,
        # wherever it goes.
        options["grpc.enable_http_proxy"] = 0
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=list(options.items()))
    return grpc.aio.secure_channel(address, credentials, options=list(options.items()))


@dataclass
class Clients:
    """The stubs of every service, over channels that are opened when first used."""

    addresses: Addresses
    tls: ClientTls = field(default_factory=ClientTls)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    on_retry: Callable[[str, grpc.aio.AioRpcError], None] | None = None
    """Called with the service's method and the error before each further try."""
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to a service by its short name."""
        if service not in self._channels:
            address = getattr(self.addresses, service)
            if not address:
                raise ConfigurationError(f"no address of the {service} service is set")
            self._channels[service] = connect(address, self.tls)
        return self._channels[service]

    @property
    def inference(self) -> InferenceServiceAsyncStub:
        """Text generation."""
        return InferenceServiceStub(self.channel("inference"))

    @property
    def sandbox(self) -> SandboxServiceAsyncStub:
        """Execution."""
        return SandboxServiceStub(self.channel("sandbox"))

    @property
    def dataset(self) -> DatasetServiceAsyncStub:
        """Records."""
        return DatasetServiceStub(self.channel("dataset"))

    @property
    def training(self) -> TrainingServiceAsyncStub:
        """Fine-tuning."""
        return TrainingServiceStub(self.channel("training"))

    @property
    def coordinator(self) -> CoordinatorServiceAsyncStub:
        """Runs."""
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
            method: A stub's method: `clients.dataset.Append`.
            request: Its request.
            timeout: Seconds for each try.
            retry: In place of the clients' own policy.

        Raises:
            grpc.aio.AioRpcError: The last try's error.
        """
        policy = retry or self.retry
        tried = 0
        while True:
            tried += 1
            try:
                return await method(request, timeout=timeout, metadata=_metadata())
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
        """Make a server-streaming call; tried again as long as nothing has come back yet.

        Raises:
            grpc.aio.AioRpcError: The last try's error, or one after the first message.
        """
        policy = retry or self.retry
        tried = 0
        while True:
            tried += 1
            started = False
            call = method(request, timeout=timeout, metadata=_metadata())
            try:
                async for response in call:
                    started = True
                    yield response
                return
            except grpc.aio.AioRpcError as error:
                if started or policy.gives_up(tried, error):
                    raise
                await self._wait(method, policy, tried, error)
            finally:
                call.cancel()

    async def _wait(self, method: object, policy: RetryPolicy, tried: int, error: grpc.aio.AioRpcError) -> None:
        name = getattr(method, "_method", b"")
        text = name.decode() if isinstance(name, bytes) else str(name)
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


def _metadata() -> tuple[tuple[str, str], ...]:
    """The request's id and trace travel on to what it calls."""
    bound: Mapping[str, Any] = structlog.contextvars.get_contextvars()
    pairs = ((REQUEST_ID_HEADER, bound.get("request_id")), (TRACE_HEADER, bound.get("traceparent")))
    return tuple((key, str(value)) for key, value in pairs if value)
