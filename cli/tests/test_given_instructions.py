"""`codealign run` finds the instructions that a pipeline begins with: a collection's, or another run's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import dataset_pb2_grpc as rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.collecting import given_instructions
from codealign.cli.failures import Failure

FULL, EMPTY = "ab" * 16, "cd" * 16
RUNS = [
    pb.Record(id=FULL, kind=pb.KIND_RUN, run=pb.Run(name="first")),
    pb.Record(id=EMPTY, kind=pb.KIND_RUN, run=pb.Run(name="second")),
]


class Dataset(rpc.DatasetServiceServicer):
    """A dataset service with two runs; one of them and one other collection have instructions."""

    async def Count(self, request: ds.CountRequest, context: object) -> ds.CountResponse:
        kind = pb.KIND_INSTRUCTION if request.collection in ("imported", FULL) else pb.KIND_SEED
        return ds.CountResponse(counts=[ds.RecordCount(kind=kind, count=3)])

    async def Scan(self, request: ds.ScanRequest, context: object) -> ds.ScanResponse:
        return ds.ScanResponse(records=RUNS)


@pytest.fixture
def connected(serving: Callable[..., Any]) -> Callable[..., Any]:
    servicer = Dataset()  # type: ignore[abstract]  # what is not called is not there
    made: Callable[..., Any] = serving(
        dataset=lambda server: rpc.add_DatasetServiceServicer_to_server(servicer, server)
    )
    return made


@pytest.mark.parametrize(
    ("given", "found"), [("imported", "imported"), (FULL, FULL), (FULL[:8], FULL), ("first", FULL)]
)
async def test_a_collection_or_a_run_is_found(connected: Callable[..., Any], given: str, found: str) -> None:
    async with connected() as connection:
        assert await given_instructions(connection, "evol-instruct", given) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "pipeline evol-instruct begins with instructions: name the run whose instructions to use"),
        (
            "nowhere",
            "--collection nowhere: no run has this id or name, and no collection of this name has instructions",
        ),
        ("second", f"--collection second: run {EMPTY[:12]} has no instructions"),
    ],
)
async def test_what_has_no_instructions_is_named(connected: Callable[..., Any], given: str, said: str) -> None:
    async with connected() as connection:
        with pytest.raises(Failure) as caught:
            await given_instructions(connection, "evol-instruct", given)
    assert said in str(caught.value)
