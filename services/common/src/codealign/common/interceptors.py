"""Interceptor for every call: authorization, request id, deadline, rich error statuses, metrics, and a log line."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import structlog
from grpc_status import rpc_status

from codealign.common import metrics, traces
from codealign.common.access import Access
from codealign.common.errors import CodeAlignError, DeadlineExceeded, Internal, InvalidArgument
from codealign.common.logs import get_logger

log = get_logger(__name__)

REQUEST_ID_HEADER = "x-request-id"

Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]


def _bind(context: grpc.aio.ServicerContext[Any, Any], method: str) -> None:
    metadata = dict(context.invocation_metadata() or ())
    traces.enter(metadata)
    given = str(metadata.get(REQUEST_ID_HEADER, ""))
    request_id = given[:64] if given.isprintable() and given else (traces.current_trace_id() or uuid.uuid4().hex)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id, method=method)
    context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: CodeAlignError) -> NoReturn:
    sent = error.to_status()
    status = rpc_status.to_status(sent)
    trailing = (*tuple(context.trailing_metadata() or ()), *tuple(status.trailing_metadata or ()))
    await context.abort(error.code, sent.message, trailing)
    raise AssertionError("abort never returns")


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler.

    Args:
        max_deadline: Maximum seconds of a call, whatever its deadline.
        access: Access lists. None: callers have no names, and every call is allowed.
    """

    def __init__(self, max_deadline: float, access: Access | None = None) -> None:
        self._max_deadline = max_deadline
        self._access = access
        # By method: the handler, and the one that wraps it.
        self._wrapped: dict[str, tuple[Any, grpc.RpcMethodHandler[Any, Any]]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        # Health reveals only what the plain health port already does.
        if handler is None or method.startswith("/grpc.health."):
            return handler
        wrapped = self._wrapped.get(method)
        if wrapped is None or wrapped[0] is not handler:
            wrapped = self._wrapped[method] = handler, self._wrap(handler, method)
        return wrapped[1]

    def _wrap(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
        kind = _kind(handler.request_streaming, handler.response_streaming)
        inner: Handler = getattr(handler, kind)
        if self._access is not None and not handler.request_streaming:
            # Treat unary requests as streams of one message: gRPC would read and parse a unary request before it calls
            # the handler, but nothing must be read from unauthorized callers.
            inner = (_one_to_many if handler.response_streaming else _one_to_one)(inner)
            kind = _kind(True, handler.response_streaming)
        factory: Callable[..., grpc.RpcMethodHandler[Any, Any]] = getattr(grpc, f"{kind}_rpc_method_handler")
        return factory(
            self._stream(inner, method) if handler.response_streaming else self._unary(inner, method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, inner: Handler, method: str) -> Handler:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            _bind(context, method)
            async with _observed(context, method), asyncio.timeout(self._deadline(context)):
                self._admit(context, method)
                return await inner(request, context)

        return call

    def _stream(self, inner: Handler, method: str) -> Handler:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            _bind(context, method)
            async with _observed(context, method), asyncio.timeout(self._deadline(context)):
                self._admit(context, method)
                async with contextlib.aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        yield response

        return call

    def _admit(self, context: grpc.aio.ServicerContext[Any, Any], method: str) -> None:
        if self._access is not None:
            structlog.contextvars.bind_contextvars(caller=self._access.check(method, context))

    def _deadline(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        remaining = context.time_remaining()
        return self._max_deadline if remaining is None else min(float(remaining), self._max_deadline)


def _kind(request_streaming: bool, response_streaming: bool) -> str:
    return "_".join("stream" if streaming else "unary" for streaming in (request_streaming, response_streaming))


def _one_to_one(inner: Handler) -> Handler:
    async def call(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await inner(await _only(requests), context)

    return call


def _one_to_many(inner: Handler) -> Handler:
    async def call(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async with contextlib.aclosing(inner(await _only(requests), context)) as responses:
            async for response in responses:
                yield response

    return call


async def _only(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        return request
    raise InvalidArgument("request", "is missing: the call ended without a message")


class _observed:  # noqa: N801 - used as a verb
    """Counts and times a call, and converts its exceptions to statuses."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], method: str) -> None:
        self._context, self._method = context, method

    async def __aenter__(self) -> None:
        self._start = time.perf_counter()
        self._span = traces.start_call(self._method, traces.SpanKind.SERVER)
        metrics.STARTED.labels(self._method).inc()
        metrics.IN_FLIGHT.labels(self._method).inc()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        code = "OK"
        answer: CodeAlignError | None = None
        if isinstance(error, CodeAlignError):
            answer = error
        elif isinstance(error, TimeoutError):
            answer = DeadlineExceeded("the deadline passed before the work was done")
        elif isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            code = "CANCELLED"
        elif isinstance(error, grpc.aio.AbortError):
            code = _code_name(self._context)
        elif isinstance(error, Exception):
            log.exception("call_failed")
            answer = Internal(f"unexpected {type(error).__name__}: {error}; see the server's log for details")
        if answer is not None:
            code = answer.code.name
        seconds = time.perf_counter() - self._start
        metrics.IN_FLIGHT.labels(self._method).dec()
        metrics.HANDLED.labels(self._method, code).observe(seconds)
        traces.end_call(self._span, code, answer.message if answer else "")
        event = {"code": code, "seconds": round(seconds, 4)}
        if code == "OK":
            log.debug("call", **event)
        else:
            log.info("call", **event, message=answer.message if answer else "")
        if answer is not None:
            await _abort(self._context, answer)


def _code_name(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
