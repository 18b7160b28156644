"""What the coordinator needs of other services. Everything above speaks to these; `remote` is them over gRPC.

Requests and responses are the contract's own messages. An error is one of `codealign.common.errors`, so nothing above
this package knows gRPC. No method tries again by itself: what an error means, and how long to wait, is the caller's to
say (`faults`, `store`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.training.v1 import training_pb2 as tr


class Dataset(Protocol):
    """Records, leases and versions."""

    async def append(self, request: ds.AppendRequest) -> ds.AppendResponse:
        """Add records, all or none."""

    async def get(self, request: ds.GetRequest) -> ds.GetResponse:
        """Records by id."""

    async def join(self, request: ds.JoinRequest) -> ds.JoinResponse:
        """Make records members of a collection, and give them."""

    async def scan(self, request: ds.ScanRequest) -> ds.ScanResponse:
        """A page of records."""

    async def count(self, request: ds.CountRequest) -> ds.CountResponse:
        """How many records there are, and what they took."""

    async def lineage(self, request: ds.LineageRequest) -> ds.LineageResponse:
        """A record's ancestors or descendants."""

    async def publish_version(self, request: ds.PublishVersionRequest) -> ds.PublishVersionResponse:
        """Write a collection's examples as a version. May take an hour."""

    async def acquire_lease(self, request: ds.AcquireLeaseRequest) -> ds.AcquireLeaseResponse:
        """Take a lease. `Unavailable` where another holder has it."""

    async def renew_lease(self, request: ds.RenewLeaseRequest) -> ds.RenewLeaseResponse:
        """Keep a lease. `FailedPrecondition` where it expired or another holder has it."""

    async def release_lease(self, request: ds.ReleaseLeaseRequest) -> ds.ReleaseLeaseResponse:
        """Give a lease back."""


class Inference(Protocol):
    """Models that write."""

    def generate(self, request: inf.GenerateRequest, *, timeout: float) -> AsyncGenerator[inf.GenerateResponse]:
        """Completions as they finish. Closing the generator stops the work."""

    async def get_model(self, request: inf.GetModelRequest) -> inf.GetModelResponse:
        """A model that is loaded."""

    async def get_load(self, request: inf.GetLoadRequest) -> inf.GetLoadResponse:
        """What the engine is doing, and how much it can do at once."""

    async def count_tokens(self, request: inf.CountTokensRequest) -> inf.CountTokensResponse:
        """Tokens of texts. `Unimplemented` where the engine has no tokenizer."""

    async def list_models(self, request: inf.ListModelsRequest) -> inf.ListModelsResponse:
        """The models that are loaded."""

    async def load_model(self, request: inf.LoadModelRequest) -> inf.LoadModelResponse:
        """Load a model. May take an hour."""

    async def unload_model(self, request: inf.UnloadModelRequest) -> inf.UnloadModelResponse:
        """Let a model go."""


class Sandbox(Protocol):
    """Execution."""

    async def execute(self, request: sb.ExecuteRequest, *, timeout: float) -> sb.ExecuteResponse:
        """Run one program."""

    async def get_runner(self, request: sb.GetRunnerRequest) -> sb.GetRunnerResponse:
        """The runners."""

    async def get_capacity(self, request: sb.GetCapacityRequest) -> sb.GetCapacityResponse:
        """Slots, and how many programs wait."""


class Training(Protocol):
    """Fine-tuning."""

    async def submit(self, request: tr.SubmitTrainingRequest) -> tr.SubmitTrainingResponse:
        """Ask for a training. The same specification is the same training."""

    async def get(self, request: tr.GetTrainingRequest) -> tr.GetTrainingResponse:
        """How far a training is."""

    async def cancel(self, request: tr.CancelTrainingRequest) -> tr.CancelTrainingResponse:
        """Stop a training."""


@dataclass(frozen=True)
class Services:
    """All that the coordinator calls."""

    dataset: Dataset
    inference: Inference
    sandbox: Sandbox
    training: Training
