"""Distributed traces with OpenTelemetry: exported over OTLP when an endpoint is configured, free of cost otherwise.

The standard variables configure it: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) turns
traces on, `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` choose a share. The context travels between services as
W3C `traceparent` in the metadata of gRPC calls.

Work on one item has a trace whose id is derived from the item's key. So a resumed run continues the item's trace, and
the trace of a record can be found without storing its id anywhere.

Export never blocks: a background thread sends batches, and spans are dropped if the collector is slow or unavailable.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from codealign.common.errors import ConfigurationError
from codealign.common.text import encodable
from codealign.common.trace_variables import exporting_to

if TYPE_CHECKING:  # the SDK is imported only if an endpoint is configured
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Context", "Span", "SpanContext", "SpanKind"]

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]
"""Attributes of a span. Never text that a model wrote."""
FLUSH_SECONDS = 3.0
"""Grace period for spans that are not exported yet when the service stops."""
MAX_LINKS = 32
"""Maximum links of one span. A batch may serve more items than anyone would follow."""

_LAST_SECOND = 2**63 / 1e9
_PROPAGATOR = TraceContextTextMapPropagator()
_tracer: trace.Tracer = trace.NoOpTracer()
_providers: dict[str, TracerProvider] = {}
_next_ids: ContextVar[tuple[int, int] | None] = ContextVar("next_ids", default=None)


def configure(service: str, others: Sequence[str] = ()) -> Callable[[], None]:
    """Export this process's spans if the environment names an endpoint.

    Args:
        service: Short name, such as "sandbox". The spans' `service.name` is `codealign-<service>`.
        others: Names of parts without a network for which this process exports spans, such as "runner".

    Returns:
        A function that exports the last spans; to be called when the service stops.

    Raises:
        ConfigurationError: A variable has an unusable value.
    """
    global _tracer
    variable, endpoint = exporting_to()
    if not endpoint:
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError as error:
        raise ConfigurationError(
            f"traces to {endpoint} need the extra `traces` of codealign-common ({error}); install it, or unset "
            f"{variable}"
        ) from None

    class Ids(RandomIdGenerator):
        """Ids that `item_span` has chosen, and random ones otherwise."""

        def generate_trace_id(self) -> int:
            chosen = _next_ids.get()
            return chosen[0] if chosen else super().generate_trace_id()

        def generate_span_id(self) -> int:
            chosen = _next_ids.get()
            return chosen[1] if chosen else super().generate_span_id()

    try:
        processor = BatchSpanProcessor(OTLPSpanExporter(insecure=urlsplit(endpoint).scheme == "http"))
        for name in (service, *others):
            resource = Resource.create({"service.name": f"codealign-{name}", "service.version": _version()})
            provider = TracerProvider(resource=resource, id_generator=Ids(), shutdown_on_exit=False)
            provider.add_span_processor(processor)
            _providers[name] = provider
    except Exception as error:  # the SDK has its own kinds of errors
        raise ConfigurationError(
            f"traces cannot be exported to {endpoint}: {error}; check the OTEL_* variables"
        ) from None
    _tracer = _providers[service].get_tracer("codealign")

    def stop() -> None:
        # The SDK's own limits are longer, and hold for each batch: a collector that never replies would keep the
        # process alive until it is killed.
        exporting = threading.Thread(target=processor.shutdown, daemon=True)
        exporting.start()
        exporting.join(FLUSH_SECONDS)

    return stop


def _version() -> str:
    try:
        return version("codealign-common")
    except PackageNotFoundError:
        return "unknown"


@contextlib.contextmanager
def span(
    name: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL, links: Sequence[SpanContext] = ()
) -> Iterator[Span]:
    """Make a span the current one. An exception that passes marks it as failed.

    Args:
        name: Name with few distinct values, such as a stage's.
        attributes: Values by name; `record` becomes `codealign.record`, names with a dot stay as they are.
        kind: Role in a call.
        links: Spans of other traces that this one also works for.
    """
    if not _providers:
        yield trace.INVALID_SPAN
        return
    linked = [Link(each) for each in {each.span_id: each for each in links if each.is_valid}.values()][:MAX_LINKS]
    with _tracer.start_as_current_span(
        name,
        kind=kind,
        links=linked,
        attributes=_named(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as started:
        try:
            yield started
        except BaseException as error:
            # Cancellation is how work is stopped, not a failure of it.
            if isinstance(error, Exception) and started.is_recording():
                started.set_status(Status(StatusCode.ERROR, encodable(f"{type(error).__name__}: {error}")[:200]))
            raise


@contextlib.contextmanager
def batch_span(name: str, served: Sequence[SpanContext], attributes: Attributes) -> Iterator[None]:
    """Record work for several items at once: a child of one item's span, with links to the others'.

    The first item whose trace is exported has it. With a ratio of traces, the very first one's often is not.

    Args:
        name: Name of the span.
        served: The span of each item that waits for the work.
        attributes: As in `span`.
    """
    if not _providers:
        yield
        return
    first, *others = sorted(served, key=lambda each: not each.trace_flags.sampled)
    with trace.use_span(NonRecordingSpan(first)), span(name, attributes, links=others):
        yield


@contextlib.contextmanager
def item_span(name: str, key: Sequence[str], attributes: Attributes) -> Iterator[Span]:
    """Start the trace of an item, or continue it if the work was interrupted.

    Args:
        name: Name of the span.
        key: Identity of the item, such as run id and seed id.
        attributes: As in `span`.
    """
    if not _providers:
        yield trace.INVALID_SPAN
        return
    token = _next_ids.set(_ids(key))
    try:
        started = _tracer.start_span(name, context=Context(), attributes=_named(attributes))
    finally:
        _next_ids.reset(token)
    with trace.use_span(started, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield started


@contextlib.contextmanager
def resumed(key: Sequence[str]) -> Iterator[None]:
    """Make the item's span the parent of the spans inside, after it has ended."""
    if not _providers:
        yield
        return
    trace_number, span_number = _ids(key)
    from opentelemetry.sdk.trace.sampling import Decision

    provider = next(iter(_providers.values()))
    # As the item's own span was decided on: without the current span, whose trace may be exported when this one is not.
    decision = provider.sampler.should_sample(Context(), trace_number, "item").decision
    flags = TraceFlags(TraceFlags.SAMPLED if decision is not Decision.DROP else TraceFlags.DEFAULT)
    parent = NonRecordingSpan(SpanContext(trace_number, span_number, is_remote=True, trace_flags=flags))
    with trace.use_span(parent):
        yield


def trace_id(key: Sequence[str]) -> str:
    """Return the trace id of an item, in hexadecimal."""
    return f"{_ids(key)[0]:032x}"


def _named(attributes: Attributes) -> dict[str, Any]:
    """Put attributes under the project's prefix, except those of a semantic convention, which have one."""
    return {key if "." in key else f"codealign.{key}": _sendable(value) for key, value in attributes.items()}


def _sendable(value: Any) -> Any:
    """Escape lone surrogates: one would cost all spans of its export."""
    if isinstance(value, str):
        return encodable(value)
    return [encodable(each) for each in value] if isinstance(value, Sequence) else value


def _ids(key: Sequence[str]) -> tuple[int, int]:
    digest = hashlib.sha256("/".join(key).encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def record(
    name: str, start: float, end: float, attributes: Attributes, context: Context | None = None, service: str = ""
) -> None:
    """Add a span for something that has already happened.

    Args:
        name: Name of the span.
        start: Unix time in seconds. At most `end`.
        end: Unix time in seconds. The present if it is no time.
        attributes: As in `span`.
        context: Context of the parent span. None: the current one.
        service: One of `configure`'s `others`. Empty: this service.
    """
    if not _providers:
        return
    tracer = _providers[service].get_tracer("codealign") if service else _tracer
    # A time that cannot be encoded would cost all spans of its export, and here an exception would stop the caller.
    end = end if 0 <= end < _LAST_SECOND else time.time()
    start = start if 0 <= start <= end else end
    tracer.start_span(name, context=context, attributes=_named(attributes), start_time=int(start * 1e9)).end(
        int(end * 1e9)
    )


def mark(event: str, attributes: Attributes) -> None:
    """Add an event to the current span."""
    here = trace.get_current_span()
    if here.is_recording():
        here.add_event(event, _named(attributes))


def current() -> SpanContext:
    """Return the identity of the current span; invalid without one."""
    return trace.get_current_span().get_span_context()


def current_context() -> Context:
    """Return the current context, for spans that `record` adds later."""
    return otel.get_current()


def current_trace_id() -> str:
    """Return the current trace id in hexadecimal, or "" without one."""
    here = current()
    return trace.format_trace_id(here.trace_id) if here.is_valid else ""


def enter(metadata: Mapping[str, Any]) -> None:
    """Continue the caller's trace until this task ends. Call once per task: each gRPC call has its own."""
    # Without `tracestate`: nothing here uses it, and each malformed member of a caller's would be a line of the log.
    parent = metadata.get("traceparent")
    given = {"traceparent": parent} if isinstance(parent, str) else {}
    # Never detached: the context ends with the task, and a generator may be closed in another one.
    otel.attach(_PROPAGATOR.extract(given, Context()))


def outgoing(call: Span) -> dict[str, str]:
    """Return the metadata that carries a call's context, or the current one if the call's span is not recorded."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(call) if call.get_span_context().is_valid else None)
    return carrier


def start_call(method: str, kind: SpanKind) -> Span:
    """Start the span of a gRPC call. A server's span becomes the current one until the task ends.

    Args:
        method: Full name, such as `/codealign.api.sandbox.v1.SandboxService/Execute`.
        kind: CLIENT or SERVER.
    """
    if not _providers:
        return trace.INVALID_SPAN
    if kind is SpanKind.CLIENT and not current().is_valid:
        # Polling, renewals of leases: not sampled, here and at the server, or most traces would show nothing else.
        ids = _providers[next(iter(_providers))].id_generator
        return NonRecordingSpan(SpanContext(ids.generate_trace_id(), ids.generate_span_id(), is_remote=False))
    service, _, name = method.strip("/").rpartition("/")
    # https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
    started = _tracer.start_span(method.strip("/"), kind=kind, attributes=attributes)
    if kind is SpanKind.SERVER:
        otel.attach(trace.set_span_in_context(started))
    return started


def end_call(call: Span, code: str, message: str = "") -> None:
    """End the span of a gRPC call with its status code, such as "OK"."""
    if call.is_recording():
        call.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        if code in ("OK", "CANCELLED"):  # cancellation is how work is stopped
            call.set_status(Status(StatusCode.UNSET))
        else:
            call.set_status(Status(StatusCode.ERROR, encodable(message)[:200]))
    call.end()


def with_trace_ids(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the current trace and span ids to a log event, as a processor of structlog."""
    here = current()
    if here.is_valid:
        event["trace_id"] = trace.format_trace_id(here.trace_id)
        event["span_id"] = trace.format_span_id(here.span_id)
    return event
