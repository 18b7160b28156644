"""The training service's process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from codealign.api.training.v1.training_pb2_grpc import add_TrainingServiceServicer_to_server
from codealign.common.clients import Addresses, Clients, ClientTls
from codealign.common.server import ALL, Callers, Readiness, Registration, serve
from codealign.trainer.cluster.api import KubernetesCluster
from codealign.trainer.cluster.trainings import ClusterTrainings
from codealign.trainer.servicer import AnyTrainings, TrainingServicer
from codealign.trainer.settings import TrainerSettings
from codealign.trainer.trainings import Trainings

SERVICE = "codealign.api.training.v1.TrainingService"
CALLERS: Callers = {
    "coordinator": ("SubmitTraining", "GetTraining", "CancelTraining"),  # trainings of a loop
    "console": ("GetTraining", "ListTrainings"),
    "client": ALL,
}
"""Methods that each client identity may call."""


@contextlib.asynccontextmanager
async def build(settings: TrainerSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Load existing trainings, resume them, and serve."""
    addresses = Addresses(dataset=settings.dataset_address, inference=settings.inference_address)
    tls = ClientTls(settings.client_ca_file, settings.client_cert_file, settings.client_key_file)
    async with Clients(addresses, tls) as clients:
        trainings: AnyTrainings
        if settings.backend == "kubernetes":
            trainings = ClusterTrainings(KubernetesCluster(settings.namespace), settings, clients, readiness)
        else:
            trainings = Trainings(settings, clients, readiness)
        working = asyncio.create_task(trainings.run())
        try:
            yield [Registration(SERVICE, add_TrainingServiceServicer_to_server, TrainingServicer(trainings), CALLERS)]
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


def main() -> None:
    """Serve until stopped."""
    serve("trainer", TrainerSettings, build)


if __name__ == "__main__":
    main()
