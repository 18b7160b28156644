"""Interfaces of the services that the coordinator calls. `remote` implements them over gRPC.

Requests and responses are the contract's messages. Errors are those of `codealign.common.errors`, so callers do not
depend on gRPC. No method retries: callers decide what an error means and how long to wait (`faults`, `store`).
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
        """Return records by id."""

    async def join(self, request: ds.JoinRequest) -> ds.JoinResponse:
        """Add records to a collection and return them."""

    async def scan(self, request: ds.ScanRequest) -> ds.ScanResponse:
        """Return a page of records."""

    async def count(self, request: ds.CountRequest) -> ds.CountResponse:
        """Return counts of records and the resources they used."""

    async def lineage(self, request: ds.LineageRequest) -> ds.LineageResponse:
        """Return a record's ancestors or descendants."""

    async def publish_version(self, request: ds.PublishVersionRequest) -> ds.PublishVersionResponse:
        """Write a collection's examples as a version. May take an hour."""

    async def acquire_lease(self, request: ds.AcquireLeaseRequest) -> ds.AcquireLeaseResponse:
        """Acquire a lease. Raises `Unavailable` if another holder has it."""

    async def renew_lease(self, request: ds.RenewLeaseRequest) -> ds.RenewLeaseResponse:
        """Renew a lease. Raises `FailedPrecondition` if it expired or another holder has it."""

    async def release_lease(self, request: ds.ReleaseLeaseRequest) -> ds.ReleaseLeaseResponse:
        """Release a lease."""


class Inference(Protocol):
    """Text generation by language models."""

    def generate(self, request: inf.GenerateRequest, *, timeout: float) -> AsyncGenerator[inf.GenerateResponse]:
        """Yield completions as they finish. Closing the generator cancels the request."""

    async def get_model(self, request: inf.GetModelRequest) -> inf.GetModelResponse:
        """Return a loaded model."""

    async def get_load(self, request: inf.GetLoadRequest) -> inf.GetLoadResponse:
        """Return the engine's current load and capacity."""

    async def count_tokens(self, request: inf.CountTokensRequest) -> inf.CountTokensResponse:
        """Count the tokens of texts. Raises `Unimplemented` if the engine has no tokenizer."""

    async def list_models(self, request: inf.ListModelsRequest) -> inf.ListModelsResponse:
        """Return the loaded models."""

    async def load_model(self, request: inf.LoadModelRequest) -> inf.LoadModelResponse:
        """Load a model. May take an hour."""

    async def unload_model(self, request: inf.UnloadModelRequest) -> inf.UnloadModelResponse:
        """Unload a model."""


class Sandbox(Protocol):
    """Program execution."""

    async def execute(self, request: sb.ExecuteRequest, *, timeout: float) -> sb.ExecuteResponse:
        """Run one program."""

    async def get_runner(self, request: sb.GetRunnerRequest) -> sb.GetRunnerResponse:
        """Return the runners."""

    async def get_capacity(self, request: sb.GetCapacityRequest) -> sb.GetCapacityResponse:
        """Return the number of slots and of queued programs."""


class Training(Protocol):
    """Fine-tuning."""

    async def submit(self, request: tr.SubmitTrainingRequest) -> tr.SubmitTrainingResponse:
        """Submit a training job. Identical specifications are the same job."""

    async def get(self, request: tr.GetTrainingRequest) -> tr.GetTrainingResponse:
        """Return the status of a training job."""

    async def cancel(self, request: tr.CancelTrainingRequest) -> tr.CancelTrainingResponse:
        """Cancel a training job."""


@dataclass(frozen=True)
class Services:
    """All services that the coordinator calls."""

    dataset: Dataset
    inference: Inference
    sandbox: Sandbox
    training: Training
