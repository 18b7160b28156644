"""The inference server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from externalscaler.externalscaler_pb2_grpc import add_ExternalScalerServicer_to_server

from codealign.api.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from codealign.common.logs import get_logger
from codealign.common.scaling import servicer as scaling
from codealign.common.server import ALL, Callers, Readiness, Registration, serve
from codealign.inference import metrics
from codealign.inference.duty import duty_of
from codealign.inference.engine_opener import EngineOpener, configured_source
from codealign.inference.gateway import wiring as gateway
from codealign.inference.registry import ModelRegistry
from codealign.inference.servicer import InferenceServicer
from codealign.inference.settings import InferenceSettings

SERVICE = "codealign.api.inference.v1.InferenceService"
CALLERS: Callers = {
    "coordinator": (
        *("Generate", "GetModel", "ListModels", "GetLoad", "CountTokens"),
        *("LoadModel", "UnloadModel"),  # a loop's tuned model
    ),
    "trainer": ("ListModels", "UnloadModel"),  # to make room on a GPU that both use
    # a gateway, of its workers
    "inference": ("Generate", "CountTokens", "LoadModel", "UnloadModel", "SyncModels"),
    "client": ALL,
}
"""Methods that each client identity may call."""
SCALER_CALLERS: Callers = {"keda": ALL, "client": ALL}
"""A gateway's. It only reports how many workers are wanted."""
_LOOK_FOR_FAULTS_SECONDS = 0.5

log = get_logger(__name__)


@asynccontextmanager
async def build(
    faults: list[str], settings: InferenceSettings, readiness: Readiness
) -> AsyncIterator[Sequence[Registration]]:
    """Load the configured model, or find workers, and yield the service; until then the server is live but not ready.

    Args:
        faults: Filled with the faults that stop the server, if any.
        settings: The server's settings.
        readiness: Set to ready once the server listens, or, of a worker, once it has what gateways want; models loaded
            or unloaded later do not change it.
    """
    if settings.worker_target:
        async with gateway.opened(settings, readiness) as opened:
            yield [
                Registration(SERVICE, add_InferenceServiceServicer_to_server, opened.servicer, CALLERS),
                Registration(scaling.SERVICE, add_ExternalScalerServicer_to_server, opened.scaler, SCALER_CALLERS),
            ]
        return
    may_be_empty = settings.start_empty or settings.worker_of_gateway
    source = "" if may_be_empty and not settings.model else configured_source(settings)
    if source:
        await readiness.set(False, f"loading model {source}")
    models = ModelRegistry(EngineOpener(settings))
    metrics.watch(models.load)
    watch = asyncio.ensure_future(_stop_at_a_fault(models, readiness, faults))
    try:
        if source:
            await models.open(source, name=settings.model_name)
        await readiness.set(False, "starting")  # the server sets ready once it listens
        async with contextlib.AsyncExitStack() as stack:
            duty = None
            if settings.worker_of_gateway:
                duty = await stack.enter_async_context(duty_of(readiness, settings.drain_seconds))
            servicer = InferenceServicer(models, duty)
            yield [Registration(SERVICE, add_InferenceServiceServicer_to_server, servicer, CALLERS)]
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await models.close()


async def _stop_at_a_fault(models: ModelRegistry, readiness: Readiness, faults: list[str]) -> None:
    """Stop the process when an engine has failed for good, so that its supervisor starts a new one."""
    while not (found := models.faults):  # noqa: ASYNC110 (a fault may show in another library's state alone)
        await asyncio.sleep(_LOOK_FOR_FAULTS_SECONDS)
    faults += found
    log.error("engine_fault", faults=found)
    await readiness.set(False, found[0])
    signal.raise_signal(signal.SIGTERM)  # graceful stop: other models finish their requests


def main() -> None:
    """Serve until stopped; exit with 1 if an engine failed."""
    faults: list[str] = []
    serve("inference", InferenceSettings, functools.partial(build, faults))
    if faults:
        sys.exit(f"codealign-inference: {faults[0]}")


if __name__ == "__main__":
    main()
