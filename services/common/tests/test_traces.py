"""Traces, between processes and with every kind of collector."""

from __future__ import annotations

import contextvars
import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common import traces
from codealign.common.clients import NO_RETRY, Addresses, Clients
from codealign.common.errors import ConfigurationError
from tests.collector import Collector, Seen, collecting, environment

from .conftest import Start, refusal

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def named(spans: list[Seen], name: str) -> Seen:
    return next(span for span in spans if span.name.endswith(name))


async def execute(clients: Clients, wish: str, timeout: float = 10) -> None:
    await clients.call(clients.sandbox.Execute, pb.ExecuteRequest(request_id=wish), timeout=timeout, retry=NO_RETRY)


async def calls(start: Start, wishes: list[str], **variables: str) -> str:
    """Call a server inside a caller's trace, and return its log."""
    server = start(variables)
    token = attach(
        trace.set_span_in_context(
            trace.NonRecordingSpan(
                trace.SpanContext(int(TRACE, 16), 7, is_remote=True, trace_flags=trace.TraceFlags(1))
            )
        )
    )
    try:
        async with Clients(Addresses(sandbox=server.address)) as clients:
            for wish in wishes:
                try:
                    await execute(clients, wish)
                except Exception:
                    continue
    finally:
        detach(token)
    assert server.stop() == 0
    return server.log.read_text()


async def test_a_call_is_a_span_of_the_callers_trace_and_its_log_has_the_trace_id(
    start: Start, collector: Collector
) -> None:
    log = await calls(start, ["fine", "bad", "fault"], **environment(collector.endpoint))
    fine, bad, fault = sorted(collector.wait(lambda spans: len(spans) == 3), key=lambda span: span.start)
    assert {span.trace for span in (fine, bad, fault)} == {TRACE}
    assert fine.service == "codealign-odd"
    assert fine.name == "codealign.api.sandbox.v1.SandboxService/Execute"
    assert [span.attributes["rpc.grpc.status_code"] for span in (fine, bad, fault)] == [0, 3, 13]
    assert [span.failed for span in (fine, bad, fault)] == [False, True, True]
    events = [json.loads(line) for line in log.splitlines()]
    assert {event["trace_id"] for event in events if event["event"] == "call"} == {TRACE}


async def test_without_an_endpoint_the_callers_trace_is_in_the_log_and_nothing_else_happens(start: Start) -> None:
    log = await calls(start, ["bad"])
    (call,) = [event for line in log.splitlines() if (event := json.loads(line))["event"] == "call"]
    assert call["trace_id"] == TRACE


@pytest.mark.parametrize("odd", ["=" * 300, "a=1,a=1", "é"])
def test_a_callers_tracestate_writes_no_log(odd: str, caplog: pytest.LogCaptureFixture) -> None:
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    call = contextvars.copy_context()
    call.run(traces.enter, {"traceparent": parent, "tracestate": odd})
    assert call.run(traces.current_trace_id) == TRACE
    assert not caplog.records


async def test_a_server_works_and_stops_if_its_collector_is_unavailable(start: Start) -> None:
    log = await calls(start, ["fine"] * 50, **environment("http://127.0.0.1:9"))
    assert "Traceback" not in log


async def test_a_server_stops_in_time_if_its_collector_never_replies(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        await calls(start, ["fine"], **environment(endpoint), OTEL_EXPORTER_OTLP_TIMEOUT="600")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:port"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/v1/traces"),
        ("OTEL_TRACES_SAMPLER", "ratio"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "token"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", __file__),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1.5"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1"),
    ],
)
def test_an_unusable_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, given in {**environment("http://127.0.0.1:4317"), variable: value}.items():
        monkeypatch.setenv(name, given)
    with pytest.raises(ConfigurationError, match=variable):
        traces.configure("part")


def test_a_ratio_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("half", "7", "nan"):
        share = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": value}
        for name, given in {**environment("http://127.0.0.1:4317"), **share}.items():
            monkeypatch.setenv(name, given)
        with pytest.raises(ConfigurationError, match=f"OTEL_TRACES_SAMPLER_ARG={value}: must be a number from 0 to 1"):
            traces.configure("part")


def test_a_server_says_why_it_cannot_export_and_ends() -> None:
    unusable = {"OTEL_BSP_MAX_QUEUE_SIZE": "5", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50"}
    assert "OTEL_" in refusal({**environment("http://127.0.0.1:4317"), **unusable})


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_traces_can_be_switched_off_with_an_endpoint(off: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, given in {**environment("http://127.0.0.1:4317"), **off}.items():
        monkeypatch.setenv(name, given)
    traces.configure("part")()
    with traces.item_span("item", ["run", "seed"], {}) as span:
        assert not span.get_span_context().is_valid


IN_A_PROCESS = """
import sys
from codealign.common import traces
stop = traces.configure("part", ["helper"])
key = ["run", "seed"]
with traces.item_span("item", key, {"record": "seed"}):
    with traces.span("stage", {}):
        first = traces.current()
with traces.item_span("item", ["run", "other"], {}):
    with traces.span("stage", {}):
        with traces.batch_span("batch", [first, traces.current()], {"items": 2}):
            pass
with traces.resumed(key):
    with traces.span("selection", {"outcome": "kept"}):
        traces.mark("chosen", {"rank": 1})
    traces.record("execute", 1000.0, 1001.5, {"verdict": "PASSED"}, None, "helper")
try:
    with traces.resumed(key), traces.span("failing", {}):
        raise ValueError("lone surrogate \\ud800")
except ValueError:
    pass
print(traces.trace_id(key))
stop()
"""


def test_work_on_an_item_is_one_trace_that_is_found_by_the_items_key(collector: Collector) -> None:
    command, variables = [sys.executable, "-c", IN_A_PROCESS], environment(collector.endpoint)
    made = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert not made.stderr
    spans = collector.wait(lambda spans: len(spans) == 8)
    item = [span for span in spans if span.trace == made.stdout.strip()]
    root = next(span for span in item if not span.parent)
    assert {span.name for span in item} == {"item", "stage", "batch", "selection", "execute", "failing"}
    assert {named(item, name).parent for name in ("stage", "selection", "execute", "failing")} == {root.id}
    # One call for two items is in the first one's trace, and linked from there to the other's.
    (other,) = {span.trace for span in spans} - {root.trace}
    assert named(item, "batch").parent == named(item, "stage").id
    assert named(item, "batch").links == [other]
    assert named(item, "selection").events == [("chosen", {"codealign.rank": 1})]
    assert named(item, "failing").failed
    execution = named(item, "execute")
    assert (execution.service, execution.end - execution.start) == ("codealign-helper", 1_500_000_000)


def test_a_share_of_the_traces_is_kept_whole_or_not_at_all(collector: Collector) -> None:
    program = """
from codealign.common import traces
stop = traces.configure("part")
with traces.item_span("run", ["run1"], {}):
    for number in range(200):
        with traces.item_span("item", [str(number)], {}) as item, traces.span("stage", {}):
            served = traces.current()
            with traces.resumed(["run1"]):
                unserved = traces.current()
            with traces.batch_span("batch", [unserved, served], {}):
                pass
        with traces.resumed([str(number)]), traces.span("selection", {}):
            pass
stop()
"""
    share = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    subprocess.run([sys.executable, "-c", program], env={**environment(collector.endpoint), **share}, check=True)
    kept = {span.trace for span in collector.spans}
    assert 50 < len(kept) < 150
    # This run's own trace is not kept, which decides on no item's, and not on the batches that serve one of them.
    assert all(span.name != "run" for span in collector.spans)
    assert len(collector.spans) == 4 * len(kept)


def test_odd_values_cost_neither_the_caller_nor_other_spans(collector: Collector) -> None:
    program = """
from codealign.common import traces
stop = traces.configure("part")
traces.record("text", 1.0, 2.0, {"text": "lone surrogate \\ud800", "texts": ["\\udfff"]})
for start, end in ((float("nan"), 1.0), (1.0, float("inf")), (-1.0, 2.0), (3.0, 2.0), (1e300, 1e300)):
    traces.record("time", start, end, {})
stop()
"""
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment(collector.endpoint), capture_output=True, text=True
    )
    assert (made.returncode, made.stderr) == (0, "")
    spans = collector.wait(lambda spans: len(spans) == 6)
    assert all(0 < span.start <= span.end for span in spans)
    assert named(spans, "text").attributes["codealign.texts"] == ["\\udfff"]
