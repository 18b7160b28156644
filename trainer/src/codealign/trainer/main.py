"""The training service's process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from codealign.api.training.v1.training_pb2_grpc import add_TrainingServiceServicer_to_server
from codealign.common.server import Readiness, Registration, serve
from codealign.trainer.servicer import TrainingServicer
from codealign.trainer.settings import TrainerSettings

SERVICE = "codealign.api.training.v1.TrainingService"


@contextlib.asynccontextmanager
async def build(settings: TrainerSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Register the service; not ready, since it can do no work."""
    await readiness.set(False, "no training engine in this version")
    yield [Registration(SERVICE, add_TrainingServiceServicer_to_server, TrainingServicer())]


def main() -> None:
    """Serve until told to stop."""
    serve("trainer", TrainerSettings, build)


if __name__ == "__main__":
    main()
