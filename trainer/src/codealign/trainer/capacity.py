"""Checks whether a training fits on this machine, and unloads models of an inference service to make it fit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from codealign.api.inference.v1 import inference_pb2
from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import NO_RETRY, Clients
from codealign.common.errors import FailedPrecondition, describe
from codealign.common.logs import get_logger
from codealign.common.machine import available_memory
from codealign.trainer import machine
from codealign.trainer.estimate import Needs
from codealign.trainer.sft.job import Job

log = get_logger(__name__)

_POLL_SECONDS = 0.5


class Capacity:
    """Memory and disk of this machine.

    Args:
        clients: Clients, with the inference service's address if there is one.
        unload_wait: Seconds to wait until the memory of unloaded models is free.
    """

    def __init__(self, clients: Clients, unload_wait: float) -> None:
        self._clients = clients
        self._unload_wait = unload_wait

    async def estimate(self, job: Job, needs: Needs) -> api.ResourceEstimate:
        """Return needed and available resources."""
        return api.ResourceEstimate(
            memory_bytes=needs.memory,
            memory_available_bytes=await asyncio.to_thread(memory, job),
            disk_bytes=needs.disk,
            disk_available_bytes=machine.free_disk(job.output),
        )

    async def ensure_fits(self, job: Job, needs: Needs) -> list[str]:
        """Ensure that a training fits, by unloading the inference service's models if that is enough.

        Returns:
            Notes about unloaded models, for users.

        Raises:
            FailedPrecondition: The training does not fit; the message has the numbers.
        """
        if job.device == "cuda" and (there := len(await asyncio.to_thread(machine.gpus))) < job.workers:
            raise FailedPrecondition(
                f"spec.workers is {job.workers}, but this machine has {there} GPUs that the training service sees: "
                "lower spec.workers, or check nvidia-smi and CUDA_VISIBLE_DEVICES"
            )
        found = await self.estimate(job, needs)
        # Files of an earlier process of the same training are replaced, not added to.
        own = sum(file.stat().st_size for file in job.checkpoints.rglob("*") if file.is_file())
        if found.disk_bytes > found.disk_available_bytes + own:
            raise FailedPrecondition(
                f"the training needs about {_gigabytes(found.disk_bytes)} of disk in {job.output.parent} (two "
                "checkpoints while one is replaced, and the result), but only "
                f"{_gigabytes(found.disk_available_bytes)} are free: free disk space, or set "
                "CODEALIGN_TRAINER_DATA_DIR to another disk"
            )
        if found.memory_bytes <= found.memory_available_bytes:
            return []
        models = await self._models(job)
        held = sum(model.size_bytes for model in models)
        # vLLM holds much more of a GPU than its weights; how much becomes free shows only afterwards.
        by_weights = all(model.engine != "vllm" or model.device == "cpu" for model in models)
        if not models or (by_weights and found.memory_bytes > found.memory_available_bytes + held):
            raise self._does_not_fit(job, found, held)
        for model in models:
            try:
                await self._clients.call(
                    self._clients.inference.UnloadModel,
                    inference_pb2.UnloadModelRequest(name=model.name, may_sleep=True),
                    timeout=60,
                    retry=NO_RETRY,
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    continue  # an adapter, which went with its base
                raise self._does_not_fit(job, found, held, f"{model.name} stays loaded: {describe(error)}") from error
            log.info("model_unloaded", model=model.name, bytes=model.size_bytes)
        await self._wait_for(job, needs, held)
        return [
            f"model {model.name} was unloaded from the inference service to free memory "
            f"({_gigabytes(model.size_bytes)}); load it again when the training has ended"
            for model in models
        ]

    async def _models(self, job: Job) -> Sequence[inference_pb2.Model]:
        if not self._clients.addresses.inference:
            return []
        try:
            answer = await self._clients.call(
                self._clients.inference.ListModels, inference_pb2.ListModelsRequest(), timeout=15, retry=NO_RETRY
            )
        except grpc.aio.AioRpcError as error:
            log.info("inference_unavailable", error=describe(error))
            return []
        return [model for model in answer.models if model.device.startswith(job.device) and model.size_bytes]

    async def _wait_for(self, job: Job, needs: Needs, held: int) -> None:
        waited = 0.0
        while needs.memory > await asyncio.to_thread(memory, job):
            if waited >= self._unload_wait:
                found = await self.estimate(job, needs)
                raise self._does_not_fit(job, found, held, "unloading all its models did not free enough")
            await asyncio.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    def _does_not_fit(self, job: Job, found: api.ResourceEstimate, held: int, why: str = "") -> FailedPrecondition:
        where = "of each GPU's memory" if job.device == "cuda" else "of memory"
        models = f"; the inference service's models use {_gigabytes(held)}" if held else ""
        return FailedPrecondition(
            f"the training needs about {_gigabytes(found.memory_bytes)} {where}, but only "
            f"{_gigabytes(found.memory_available_bytes)} are free{models}{f' ({why})' if why else ''}: set "
            "spec.gradient_checkpointing or spec.lora, lower spec.max_length, use a smaller model, or free memory"
        )


def memory(job: Job) -> int:
    """Return the free bytes: of main memory for all workers, or of the fullest GPU."""
    if job.device == "cpu":
        return available_memory() or 0
    free = [gpu.free for gpu in machine.gpus()[: job.workers]]
    return min(free, default=0) if len(free) == job.workers else 0


def _gigabytes(amount: int) -> str:
    return f"{amount / 1e9:.2f} GB"
