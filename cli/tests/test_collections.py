"""`codealign data ls` and `codealign seeds ls` with a store that has many collections."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import dataset_pb2_grpc as rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.commands import data, seeds
from codealign.cli.main import app
from codealign.common.records import is_internal, requests_collection

RUNS = {f"{number:032x}" for number in range(250)}
NAMES = ["mine", "requests/of-mine", requests_collection(datetime.now(UTC)), "ef" * 16, *sorted(RUNS)]


class Dataset(rpc.DatasetServiceServicer):
    """A dataset service in which every collection has three records, two of them seeds."""

    def __init__(self) -> None:
        self.calls = 0

    async def ListCollections(self, request: ds.ListCollectionsRequest, context: object) -> ds.ListCollectionsResponse:
        return ds.ListCollectionsResponse(collections=[ds.Collection(name=name, records=3) for name in NAMES])

    async def ListVersions(self, request: ds.ListVersionsRequest, context: object) -> ds.ListVersionsResponse:
        return ds.ListVersionsResponse()

    async def Count(self, request: ds.CountRequest, context: object) -> ds.CountResponse:
        self.calls += 1
        kinds = (pb.KIND_SEED, 2), (pb.KIND_RUN_REQUEST, 1)
        return ds.CountResponse(counts=[ds.RecordCount(kind=kind, count=count) for kind, count in kinds])

    async def Get(self, request: ds.GetRequest, context: object) -> ds.GetResponse:
        self.calls += 1
        return ds.GetResponse(records=[pb.Record(id=one, kind=pb.KIND_RUN) for one in request.ids if one in RUNS])


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch, serving: Callable[..., Any]) -> Dataset:
    servicer = Dataset()  # type: ignore[abstract]  # what is not called is not there
    connected = serving(dataset=lambda server: rpc.add_DatasetServiceServicer_to_server(servicer, server))
    for command in (data, seeds):
        monkeypatch.setattr(command, "services", connected)
    return servicer


def listed(command: str) -> dict[str, str]:
    result = CliRunner().invoke(app, [command, "ls"])
    assert result.exit_code == 0, result.output
    rows = (line.split() for line in result.output.splitlines()[1:])
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_the_services_own_collections_are_not_listed(dataset: Dataset) -> None:
    found = listed("data")
    assert set(found) == set(NAMES) - {NAMES[2]}
    assert set(found.values()) == {"3"}


def test_collections_of_seeds_are_listed_without_runs_and_a_call_for_each_of_these(dataset: Dataset) -> None:
    assert listed("seeds") == {"mine": "2", "requests/of-mine": "2", "ef" * 16: "2"}
    assert dataset.calls < 10


@pytest.mark.parametrize("name", ["requests", "requests/", "requests/2026-01-01x", "a/requests/2026-01-01"])
def test_a_persons_own_name_is_not_internal(name: str) -> None:
    assert not is_internal(name)
