"""Entry point of the sandbox gateway."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from externalscaler.externalscaler_pb2_grpc import add_ExternalScalerServicer_to_server

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import add_SandboxServiceServicer_to_server
from codealign.common.scaling import servicer as scaling
from codealign.common.scaling.demand import Demand
from codealign.common.server import ALL, Callers, Readiness, Registration, serve
from codealign.sandbox import backends
from codealign.sandbox.dispatch import RUNNER, Dispatcher
from codealign.sandbox.pool import Pool
from codealign.sandbox.scaling import Executions
from codealign.sandbox.servicer import SandboxServicer
from codealign.sandbox.settings import SandboxSettings

SERVICE = "codealign.api.sandbox.v1.SandboxService"
CALLERS: Callers = {"coordinator": ("Execute", "GetRunner", "GetCapacity"), "client": ALL}
SCALER_CALLERS: Callers = {"keda": ALL, "client": ALL}
"""It only reports how much work there is. Clients may query it too, to find out why KEDA starts no runners."""


@contextlib.asynccontextmanager
async def build(settings: SandboxSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Wire the gateway. Runners start in the background and determine the readiness."""
    await readiness.set(False, "the first runner is starting")
    demand = Demand(settings.idle_seconds)
    dispatcher = Dispatcher(settings.queue_limit, settings.attempts, demand)
    pool = backends.make_pool(settings, dispatcher, readiness)
    async with backends.filled(pool, settings):
        servicer = SandboxServicer(dispatcher, pool, settings.stream_window)
        executions = Executions(demand, lambda: _slots_per_runner(pool, settings.slots))
        scaler = scaling.ScalerServicer(executions, demand, readiness.draining)
        yield [
            Registration(SERVICE, add_SandboxServiceServicer_to_server, servicer, CALLERS),
            Registration(scaling.SERVICE, add_ExternalScalerServicer_to_server, scaler, SCALER_CALLERS),
        ]


def _slots_per_runner(pool: Pool, unknown: int) -> int:
    """Return the slots of one runner, or `unknown` if there is none."""
    ready = (runner.slots for runner in pool.descriptions if runner.state == pb.RUNNER_STATE_READY)
    return max(ready, default=unknown)


def main() -> None:
    """Run the program `codealign-sandbox`."""
    serve("sandbox", SandboxSettings, build, traced_parts=[RUNNER])


if __name__ == "__main__":
    main()
