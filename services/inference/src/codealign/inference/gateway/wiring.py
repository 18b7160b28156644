"""Connects the gateway's parts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence

from prometheus_client import Gauge

from codealign.common import discovery
from codealign.common.clients import ClientTls, connect
from codealign.common.health import Readiness
from codealign.common.logs import get_logger
from codealign.common.scaling.servicer import ScalerServicer
from codealign.inference import metrics
from codealign.inference.engine_opener import EngineOpener
from codealign.inference.gateway.dispatch import Dispatcher
from codealign.inference.gateway.exchange import Exchange
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.links import Link, Links
from codealign.inference.gateway.models import Models
from codealign.inference.gateway.scaling import Workers
from codealign.inference.gateway.servicer import GatewayServicer
from codealign.inference.settings import InferenceSettings

log = get_logger(__name__)

_TARGET = "CODEALIGN_INFERENCE_WORKER_TARGET"
_FIRST_ANSWERS_SECONDS = 10.0
"""The gateway becomes ready after this time even if a worker has not responded."""
_METRICS_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Gateway:
    """What a gateway offers."""

    servicer: GatewayServicer
    scaler: ScalerServicer


@contextlib.asynccontextmanager
async def opened(settings: InferenceSettings, readiness: Readiness) -> AsyncIterator[Gateway]:
    """Run a gateway inside this context.

    It is ready when the workers that are found first have responded or failed to. Having none is no reason to refuse
    work: they may be started at any time, and samples wait for them.

    Raises:
        ConfigurationError: A setting is invalid; the message names it.
    """
    await readiness.set(False, "looking for workers")
    targets = [discovery.parse(text, _TARGET) for text in settings.worker_target.split(",")]
    tls = ClientTls(settings.worker_tls_ca_file, settings.worker_tls_cert_file, settings.worker_tls_key_file)
    tls.credentials()  # Report an unreadable file at start-up.
    tls_name = settings.worker_tls_name or targets[0].host
    fleet = Fleet()
    name = ""
    if settings.model:
        name = settings.model_name or await asyncio.to_thread(EngineOpener(settings).name_of, settings.model)
        fleet.wanted.find(name, settings.model, "")
    dispatcher = Dispatcher(
        settings.max_waiting,
        settings.worker_attempts,
        settings.worker_wait_seconds,
        settings.worker_silence_seconds,
    )
    workers = Workers(dispatcher, fleet)
    exchange = Exchange(dispatcher, fleet, workers.update)

    def open_link(address: str) -> Link:
        channel = connect(
            address,
            tls,
            max_message_bytes=settings.max_message_bytes,
            more_options=[("grpc.ssl_target_name_override", tls_name)] if tls.ca_file or tls.cert_file else [],
        )
        link = Link(
            address,
            channel,
            fleet,
            exchange,
            settings.worker_probe_seconds,
            settings.worker_lost_seconds,
            settings.drain_seconds,
        )
        exchange.connect(link)
        return link

    links = Links(fleet, open_link, exchange, dispatcher.in_flight_at)
    models = Models(fleet, links, exchange, dispatcher.in_flight_at)
    finder = discovery.Discovery(targets, links, settings.worker_resolve_seconds, settings.drain_seconds)
    metrics.GATEWAY_QUEUE_LIMIT.set(settings.max_waiting)
    tasks = [
        asyncio.create_task(finder.run()),
        asyncio.create_task(exchange.run()),
        asyncio.create_task(_measure(dispatcher, fleet)),
    ]
    try:
        await _first_answers(finder, fleet)
        _compare(fleet, name, settings.model)
        await readiness.set(False, "starting")  # the server sets ready once it listens
        servicer = GatewayServicer(exchange, models, fleet, links, workers)
        yield Gateway(servicer, ScalerServicer(workers, workers.demand, readiness.draining))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await models.close()
        await exchange.close()
        await links.close()


async def _first_answers(finder: discovery.Discovery, fleet: Fleet) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_ANSWERS_SECONDS):
            await finder.looked_up.wait()
            while not all(worker.was_asked for worker in fleet.workers.values()):  # noqa: ASYNC110 (pure state)
                await asyncio.sleep(0.02)


def _compare(fleet: Fleet, name: str, source: str) -> None:
    """Say so if workers kept another source for the model in the settings, which then has its name."""
    entry = fleet.wanted.get(name)
    if entry is not None and (entry.removed or entry.source.rstrip("/") != source.rstrip("/")):
        log.warning(
            "configured_model_not_served",
            model=name,
            configured=source,
            served="" if entry.removed else entry.source,
            what_to_do="call UnloadModel with this name, then LoadModel with the configured source",
        )


async def _measure(dispatcher: Dispatcher, fleet: Fleet) -> None:
    """Update the metrics, forever."""
    resent: dict[str, int] = {}
    spilled = 0
    models: set[str] = set()
    workers: set[str] = set()
    while True:
        now = time.monotonic()
        queues = dispatcher.queues()
        for name, (count, since) in queues.items():
            metrics.GATEWAY_WAITING.labels(name).set(count)
            metrics.GATEWAY_OLDEST.labels(name).set(0 if since is None else time.time() - (now - since))
        models = _kept(models, queues, metrics.GATEWAY_WAITING, metrics.GATEWAY_OLDEST)
        for address in fleet.workers:
            metrics.GATEWAY_IN_FLIGHT.labels(address).set(dispatcher.in_flight_at(address))
        workers = _kept(workers, list(fleet.workers), metrics.GATEWAY_IN_FLIGHT)
        counts = fleet.count(now)
        for state in metrics.WORKER_STATES:
            metrics.GATEWAY_WORKERS.labels(state).set(counts[state])
        for reason, count in dispatcher.resent.items():
            metrics.GATEWAY_RESENT.labels(reason).inc(count - resent.get(reason, 0))
        resent = dict(dispatcher.resent)
        metrics.GATEWAY_SPILLED.inc(dispatcher.spilled - spilled)
        spilled = dispatcher.spilled
        await asyncio.sleep(_METRICS_SECONDS)


def _kept(before: set[str], now: Sequence[str] | dict[str, tuple[int, float | None]], *gauges: Gauge) -> set[str]:
    """Remove the series of what is gone, and return what is there."""
    for gone in before - set(now):
        for gauge in gauges:
            gauge.remove(gone)
    return set(now)
