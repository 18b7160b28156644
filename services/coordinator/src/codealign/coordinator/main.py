"""The coordinator's process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from codealign.api.coordinator.v1.coordinator_pb2_grpc import add_CoordinatorServiceServicer_to_server
from codealign.common.clients import Addresses, Clients, ClientTls
from codealign.common.server import ALL, Callers, Readiness, Registration, serve
from codealign.coordinator.evaluation.evaluator import Evaluator
from codealign.coordinator.rules import benchmarks
from codealign.coordinator.runs.supervisor import Supervisor
from codealign.coordinator.servicer import CoordinatorServicer
from codealign.coordinator.settings import CoordinatorSettings

SERVICE = "codealign.api.coordinator.v1.CoordinatorService"
CALLERS: Callers = {"client": ALL}
"""No service calls the coordinator."""


@contextlib.asynccontextmanager
async def build(settings: CoordinatorSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Wire the coordinator; its runs go on as long as the context lives."""
    texts = benchmarks.load(settings.benchmarks)
    addresses = Addresses(
        inference=settings.inference_address, sandbox=settings.sandbox_address, dataset=settings.dataset_address
    )
    tls = ClientTls(settings.client_ca_file, settings.client_cert_file, settings.client_key_file)
    async with Clients(addresses, tls) as clients:
        supervisor = Supervisor(settings, clients, texts)
        async with supervisor.working():
            yield [
                Registration(
                    SERVICE,
                    add_CoordinatorServiceServicer_to_server,
                    CoordinatorServicer(supervisor, Evaluator(settings, clients), clients),
                    CALLERS,
                )
            ]


def main() -> None:
    """Serve until told to stop."""
    serve("coordinator", CoordinatorSettings, build)


if __name__ == "__main__":
    main()
