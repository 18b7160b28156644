"""Where tuned models come from: the checkpoint, the version that it was trained on, and the run of that version.

The model that wrote a record may itself have been tuned on a run's data (see `codealign run --rounds`). The chain of
such models is found from the records alone: Checkpoint, version, Run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure

_ABSENT = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
"""Statuses for a version that this store does not have, or whose collection is not a run's."""
_MOST = 100
"""Maximum length of a chain of models."""


@dataclass(frozen=True)
class Origin:
    """Origin of a tuned model."""

    checkpoint: pb.Record
    run: pb.Record | None
    """The run whose version it was trained on; None: the version is not known here."""
    number: int
    """1 if that run's models were not tuned here; otherwise one more than for these."""

    @property
    def version(self) -> str:
        """The version that it was trained on."""
        return self.checkpoint.checkpoint.dataset_version


async def origins_of(connection: Connection, revisions: Iterable[str]) -> dict[str, Origin]:
    """Return the origins of those models that were tuned here, and of the models that wrote their data, by revision.

    Args:
        connection: To the dataset service.
        revisions: Revisions of models.

    Raises:
        Failure: The dataset service is unreachable.
    """
    checkpoints: dict[str, pb.Record] = {}
    async for record in connection.scan(ds.ScanRequest(kind=pb.KIND_CHECKPOINT)):
        checkpoints.setdefault(record.checkpoint.revision, record)
    runs: dict[str, pb.Record | None] = {}
    waiting = set(revisions)
    for _ in range(_MOST):
        waiting = {one for one in waiting if one in checkpoints and one not in runs}
        if not waiting:
            break
        for revision in sorted(waiting):
            runs[revision] = await _run_of(connection, checkpoints[revision].checkpoint.dataset_version)
        waiting = {one for revision in waiting for one in models_of(runs[revision])}
    numbers: dict[str, int] = {}
    return {
        revision: Origin(checkpoints[revision], run, _number(revision, runs, numbers)) for revision, run in runs.items()
    }


def models_of(run: pb.Record | None) -> list[str]:
    """Return the revisions of the models that a run generates with."""
    if run is None:
        return []
    choices = [run.run.model, *(stage.model for stage in run.run.stages if stage.HasField("model"))]
    return list(dict.fromkeys(choice.revision for choice in choices if choice.revision))


async def _run_of(connection: Connection, version: str) -> pb.Record | None:
    """Return the run that published a version, or None if version or run are not in this store."""
    try:
        found = await connection.call(connection.clients.dataset.GetVersion, ds.GetVersionRequest(name=version))
        response = await connection.call(connection.clients.dataset.Get, ds.GetRequest(ids=[found.version.collection]))
    except Failure as failure:
        cause = failure.__cause__
        if isinstance(cause, grpc.aio.AioRpcError) and cause.code() not in _ABSENT:
            raise  # the service is away: whether it has the version is not known
        return None
    return next((record for record in response.records if record.kind == pb.KIND_RUN), None)


def _number(revision: str, runs: Mapping[str, pb.Record | None], numbers: dict[str, int]) -> int:
    if revision not in numbers:
        numbers[revision] = 1  # guards against cycles in damaged data
        before = [_number(one, runs, numbers) for one in models_of(runs[revision]) if one in runs]
        numbers[revision] = 1 + max(before, default=0)
    return numbers[revision]
