"""LoadModel at the gateway: which worker is asked, and what is then to be served."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import Unavailable
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.members import Worker
from codealign.inference.gateway.models import Models


class Link:
    """A worker that has a model loaded and returns it, as a server does."""

    def __init__(self, fleet: Fleet, address: str, revision: str) -> None:
        self.address = address
        self.is_away = False
        self.stub = SimpleNamespace(LoadModel=self._load)
        self._fleet = fleet
        self._model = pb.Model(name="m", source="hub/m", revision=revision, slots=4)

    async def _load(self, request: pb.LoadModelRequest) -> pb.LoadModelResponse:
        if self.is_away:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details="it is gone")
        return pb.LoadModelResponse(model=self._model)

    async def ask(self) -> None:
        response = pb.SyncModelsResponse(models=[self._model])
        self._fleet.report(self.address, response, time.monotonic(), int(time.time() * 1000))

    async def answer(self, call: Any) -> Any:
        return await call

    def ask_soon(self) -> None:
        """Do nothing: this worker has nothing new."""


async def models_of(revisions: dict[str, str]) -> tuple[Models, Fleet, dict[str, Link]]:
    fleet = Fleet()
    links = {address: Link(fleet, address, revision) for address, revision in revisions.items()}
    for address in links:
        fleet.workers[address] = Worker(address)
    for link in links.values():
        await link.ask()
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
