"""LoadModel at the gateway: which worker is asked, and what is then to be served."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import FailedPrecondition, Internal, Unavailable
from codealign.inference.gateway.answers import Relayed
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.members import Worker
from codealign.inference.gateway.models import Models


def status(code: grpc.StatusCode, details: str, *trailers: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    metadata: Any = grpc.aio.Metadata(*trailers)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details=details)


class Link:
    """A worker that has a model loaded and returns it, as a server does."""

    def __init__(self, fleet: Fleet, address: str, revision: str) -> None:
        self.address = address
        self.is_away = False
        self.refuses: Callable[[], grpc.aio.AioRpcError] | None = None
        self.stub = SimpleNamespace(LoadModel=self._load)
        self._fleet = fleet
        self.model = pb.Model(name="m", source="hub/m", revision=revision, slots=4)

    async def _load(self, request: pb.LoadModelRequest) -> pb.LoadModelResponse:
        if self.is_away:
            raise status(grpc.StatusCode.UNAVAILABLE, "it is gone")
        if self.refuses is not None:
            raise self.refuses()
        if request.expected_revision not in ("", self.model.revision):
            raise status(grpc.StatusCode.FAILED_PRECONDITION, f"it is {self.model.revision}")
        return pb.LoadModelResponse(model=self.model)

    async def ask(self) -> None:
        response = pb.SyncModelsResponse(models=[self.model])
        self._fleet.report(self.address, response, time.monotonic(), int(time.time() * 1000))

    async def answer(self, call: Any) -> Any:
        return await call

    def ask_soon(self) -> None:
        """Do nothing: this worker has nothing new."""


async def models_of(revisions: dict[str, str], *, is_loaded: bool = True) -> tuple[Models, Fleet, dict[str, Link]]:
    fleet = Fleet()
    links = {address: Link(fleet, address, revision) for address, revision in revisions.items()}
    for address in links:
        fleet.workers[address] = Worker(address)
    for link in links.values():
        if is_loaded:
            await link.ask()
        else:
            fleet.report(link.address, pb.SyncModelsResponse(), time.monotonic(), 1)
    found: Any = SimpleNamespace(all=list(links.values()), get=links.get)
    nobody: Any = None
    return Models(fleet, found, nobody, lambda worker, name: 0), fleet, links


async def test_a_worker_with_other_weights_does_not_take_over_when_a_loaded_model_is_loaded_again() -> None:
    models, fleet, links = await models_of({"w1": "b", "w2": "a", "w3": "a"})
    assert fleet.wanted.wanted[0].revision == "a", "most have it"
    answer = await models.load("hub/m", "m", "")
    assert answer.revision == fleet.wanted.wanted[0].revision == "a"
    links["w2"].is_away = links["w3"].is_away = True
    with pytest.raises(Unavailable, match="worker w2: it is gone"):
        await models.load("hub/m", "m", "")
    assert fleet.wanted.wanted[0].revision == "a"


async def test_a_worker_that_is_gone_when_its_turn_comes_is_not_asked() -> None:
    models, fleet, links = await models_of({"w1": "a", "w2": "a", "w3": "a"}, is_loaded=False)

    def refuse_and_lose_another() -> grpc.aio.AioRpcError:
        del fleet.workers["w2"], links["w2"]
        return status(grpc.StatusCode.FAILED_PRECONDITION, "too little memory")

    links["w1"].refuses = refuse_and_lose_another
    answer = await models.load("hub/m", "m", "")
    assert [(each.worker, each.slots) for each in answer.replicas if each.slots] == [("w3", 4)]


async def test_another_source_does_not_take_a_name_over_while_the_workers_that_serve_it_are_away() -> None:
    models, fleet, links = await models_of({"w1": "a", "w2": "a", "w3": "b"})
    links["w3"].model.source = "other/m"
    await links["w3"].ask()
    for away in "w1", "w2":
        fleet.workers[away].failed("it restarts", time.monotonic())
    with pytest.raises(FailedPrecondition, match="model name m is in use by hub/m"):
        await models.load("other/m", "m", "")
    (entry,) = fleet.wanted.wanted
    assert (entry.source, entry.revision) == ("hub/m", "a")


async def test_a_revision_that_was_demanded_stays_when_the_model_is_loaded_again_without_one() -> None:
    models, fleet, links = await models_of({"w1": "a", "w2": "b"}, is_loaded=False)
    await models.load("hub/m", "m", "a")
    fleet.report("w1", pb.SyncModelsResponse(), time.monotonic(), 1)  # it has restarted
    await links["w2"].ask()  # it has found new weights at the source
    answer = await models.load("hub/m", "m", "")
    assert answer.revision == "a", "a worker that can have it is asked, not the one that has something else"
    fleet.report("w1", pb.SyncModelsResponse(), time.monotonic(), 1)
    links["w1"].model.revision = "b"
    with pytest.raises(Relayed, match="worker w1: it is b"):
        await models.load("hub/m", "m", "")
    (entry,) = fleet.wanted.wanted
    assert (entry.revision, entry.pinned) == ("a", True)


@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED])
async def test_after_an_error_whose_details_cannot_be_read_another_worker_is_asked(code: grpc.StatusCode) -> None:
    models, _, links = await models_of({"w1": "a", "w2": "a"}, is_loaded=False)
    links["w1"].refuses = lambda: status(code, "no", ("grpc-status-details-bin", b"\xff\xff\xff"))
    assert (await models.load("hub/m", "m", "")).revision == "a"
    models, _, links = await models_of({"w1": "a"}, is_loaded=False)
    links["w1"].refuses = lambda: status(code, "no", ("grpc-status-details-bin", b"\xff\xff\xff"))
    with pytest.raises(Internal, match="worker w1: no"):
        await models.load("hub/m", "m", "")
