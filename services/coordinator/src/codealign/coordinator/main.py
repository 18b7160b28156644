"""The coordinator's entry point."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from codealign.api.coordinator.v1.coordinator_pb2_grpc import add_CoordinatorServiceServicer_to_server
from codealign.common.clients import Addresses, Clients, ClientTls
from codealign.common.server import ALL, Callers, Readiness, Registration, serve
from codealign.coordinator import metrics, pipelines
from codealign.coordinator.evaluation.controller import EvaluationWorkload
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.work import STAGE as EVALUATION
from codealign.coordinator.experiments.controller import ExperimentWorkload
from codealign.coordinator.experiments.operations import Experiments
from codealign.coordinator.experiments.request import Checks
from codealign.coordinator.ground.control import Controllers
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.remote import remote
from codealign.coordinator.ground.windows import Window
from codealign.coordinator.loops.controller import LoopWorkload
from codealign.coordinator.loops.operations import Loops
from codealign.coordinator.rounds.controller import SeriesWorkload
from codealign.coordinator.rounds.operations import Rounds
from codealign.coordinator.rules import benchmarks
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.controller import RunWorkload
from codealign.coordinator.runs.operations import Runs
from codealign.coordinator.servicer import CoordinatorServicer
from codealign.coordinator.settings import CoordinatorSettings

SERVICE = "codealign.api.coordinator.v1.CoordinatorService"
CALLERS: Callers = {
    "console": (
        *("ListRuns", "GetRun", "GetReport", "ListEvaluations", "GetEvaluation"),
        *("ListExperiments", "GetExperiment"),
    ),
    "client": ALL,
}
"""Methods that each caller may use. The console only reads."""


@contextlib.asynccontextmanager
async def build(settings: CoordinatorSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Set up the coordinator; it works on runs, evaluations, loops, series and experiments inside the context."""
    texts = benchmarks.load(settings.benchmarks)
    addresses = Addresses(
        dataset=settings.dataset_address,
        inference=settings.inference_address,
        sandbox=settings.sandbox_address,
        training=settings.training_address,
    )
    tls = ClientTls(settings.client_ca_file, settings.client_cert_file, settings.client_key_file)
    async with Clients(addresses, tls) as clients:
        services = remote(clients)
        controllers, servicer = wire(settings, services, texts, readiness)
        async with contextlib.AsyncExitStack() as stack:
            if not settings.reads_only:
                await stack.enter_async_context(controllers.working(readiness.draining))
            yield [Registration(SERVICE, add_CoordinatorServiceServicer_to_server, servicer, CALLERS)]


def wire(
    settings: CoordinatorSettings, services: Services, texts: BenchmarkTexts, readiness: Readiness
) -> tuple[Controllers, CoordinatorServicer]:
    """Connect controllers and operations to the services and the servicer.

    Args:
        settings: The coordinator's settings.
        services: Services that it calls.
        texts: Benchmark texts that must not occur in a seed or a row.
        readiness: Signals when the server starts shutting down.
    """
    controllers = Controllers(
        services.dataset, [], settings.lease_holder, settings.lease_seconds, settings.drain_seconds
    )
    evaluating, running = EvaluationWorkload(settings, services), RunWorkload(settings, services, texts)
    evaluations = Evaluations(settings, services, evaluating, controllers.poke)
    loops = Loops(settings, services, evaluations, controllers.poke, controllers.assigned.get)
    runs = Runs(settings, services, texts, running, controllers.poke, controllers.assigned)
    rounds = Rounds(services, loops, controllers.poke, controllers.assigned.get)
    checks = Checks(services, runs, evaluations)
    experiments = Experiments(settings, services, checks, controllers.poke, controllers.assigned)
    controllers.add(running, evaluating, LoopWorkload(settings, services, evaluations))
    controllers.add(SeriesWorkload(services, runs, loops, evaluations))
    controllers.add(ExperimentWorkload(services, runs, loops, evaluations))
    observe(controllers, running, evaluating)
    servicer = CoordinatorServicer(runs, loops, rounds, evaluations, experiments, services, readiness.draining)
    return controllers, servicer


def observe(controllers: Controllers, runs: RunWorkload, evaluations: EvaluationWorkload) -> None:
    """Let the gauges follow these controllers. They are read by another thread, hence the copies."""

    def now() -> metrics.Now:
        live = list(runs.live.values())
        in_flight, limits, in_use = Counter[str](), Counter[str](), Counter[str]()
        for progress in live:
            for stage, tally in progress.stages.items():
                in_flight[stage] += tally.in_flight
        for evaluation in list(evaluations.live.values()):
            in_flight[EVALUATION] += evaluation.tally.in_flight
        windows: list[tuple[str, Window]] = [each for progress in live for each in progress.windows.items()]
        if evaluations.live:
            windows += evaluations.windows.items()
        for service, window in windows:
            limits[service] += window.limit
            in_use[service] += window.in_use
        return metrics.Now(controllers.states(), in_flight, limits, in_use)

    stages = {stage.name for name in pipelines.names() for stage in pipelines.get(name).stages}
    metrics.watch(now, [*sorted(stages), EVALUATION])


def main() -> None:
    """Serve until stopped."""
    serve("coordinator", CoordinatorSettings, build)


if __name__ == "__main__":
    main()
