"""Calls to inference and to the sandbox that outlast faults of the infrastructure. Runs and evaluations share them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import grpc

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.clients import NO_RETRY, Clients
from codealign.coordinator.ground.faults import Refused, RunFailed, absorb
from codealign.coordinator.ground.tally import StageTally

INFRASTRUCTURE_TRIES = 5
KEPT_OUTPUT_BYTES = 4096
"""Of each stream, what a record keeps."""
_EXECUTE_SECONDS = 600.0
_PAUSE_SECONDS = 1.0


@dataclass
class Completions:
    """Calls to inference, so many at once."""

    clients: Clients
    tally: StageTally
    slots: asyncio.Semaphore
    """Calls at once."""
    gate: Callable[[], None]
    """Raises where no new work may start."""
    timeout: float
    """Seconds for one call."""

    async def of(self, request: inf.GenerateRequest) -> AsyncGenerator[inf.GenerateResponse]:
        """One completion for each of the request's samples, as they come.

        After a fault the samples that are still owed are asked for again.

        Raises:
            Refused: Inference will never carry this request out.
            RunFailed: Another try cannot mend what went wrong.
        """
        left = {sample.attempt: sample for sample in request.samples}
        tried = 0
        while left:
            self.gate()
            tried += 1
            try:
                async with contextlib.aclosing(self._try(request, left)) as responses:
                    async for response in responses:
                        yield response
                if left:  # a stream that ended without an error owes us samples
                    raise AssertionError(f"inference ended the stream without attempts {sorted(left)}")
            except grpc.aio.AioRpcError as error:
                await absorb(error, tried, self.tally, "inference")

    async def _try(
        self, request: inf.GenerateRequest, left: dict[int, inf.Sample]
    ) -> AsyncGenerator[inf.GenerateResponse]:
        asked = inf.GenerateRequest()
        asked.CopyFrom(request)
        del asked.samples[:]
        asked.samples.extend(left.values())
        async with self.slots:
            self.gate()
            counted = len(left)
            self.tally.in_flight += counted
            try:
                method = self.clients.inference.Generate
                stream = self.clients.stream(method, asked, timeout=self.timeout, retry=NO_RETRY)
                async with contextlib.aclosing(stream) as responses:
                    async for response in responses:
                        del left[response.completion.attempt]
                        counted -= 1
                        self.tally.in_flight -= 1
                        yield response
            finally:
                self.tally.in_flight -= counted


def provenance(response: inf.GenerateResponse) -> pb.Provenance:
    """How a completion came to be, its prompt aside."""
    completion = response.completion
    return pb.Provenance(
        model=response.model,
        model_revision=response.revision,
        seed=completion.seed,
        finish_reason=inf.FinishReason.Name(completion.finish_reason).removeprefix("FINISH_REASON_").lower(),
        prompt_tokens=completion.prompt_tokens,
        cached_prompt_tokens=completion.cached_prompt_tokens,
        generated_tokens=completion.generated_tokens,
        seconds=completion.seconds,
    )


async def execute(
    clients: Clients, request: sb.ExecuteRequest, tally: StageTally, gate: Callable[[], None]
) -> sb.Result | None:
    """Run a program in the sandbox.

    Args:
        clients: The sandbox's is used.
        request: What to run.
        tally: Counts the tries that the infrastructure cost.
        gate: Raises where no new work may start; asked between two tries alone.

    Returns:
        Its result, REFUSED where the sandbox does not take the program; None where the infrastructure kept failing.

    Raises:
        RunFailed: Another try cannot mend what went wrong, or the sandbox does not isolate.
    """
    tried = 0
    while True:
        tried += 1
        try:
            method = clients.sandbox.Execute
            result = (await clients.call(method, request, timeout=_EXECUTE_SECONDS, retry=NO_RETRY)).result
        except grpc.aio.AioRpcError as error:
            try:
                await absorb(error, tried, tally, "sandbox")
            except Refused as refusal:
                return sb.Result(request_id=request.request_id, verdict=sb.VERDICT_REFUSED, detail=str(refusal))
            gate()
            continue
        if result.verdict != sb.VERDICT_INFRASTRUCTURE:
            _check_isolation(result)
            return result
        tally.retries += 1
        if tried >= INFRASTRUCTURE_TRIES:
            return None
        await asyncio.sleep(_PAUSE_SECONDS * tried)


def _check_isolation(result: sb.Result) -> None:
    """What ran without gVisor around it must never be kept, and no other program would fare better."""
    if result.verdict != sb.VERDICT_REFUSED and result.isolation != sb.ISOLATION_GVISOR:
        isolation = sb.Isolation.Name(result.isolation).removeprefix("ISOLATION_").lower()
        raise RunFailed(
            f"sandbox: runner {result.runner!r} executes without gVisor's isolation ({isolation}), which is for "
            "debugging alone: nothing of it is kept. Start the gateway with another backend, then resume"
        )


def trim(result: sb.Result) -> None:
    """Cut a result's streams to what a record keeps."""
    for stream in (result.stdout, result.stderr):
        if len(stream.data) > KEPT_OUTPUT_BYTES:
            stream.data, stream.truncated = stream.data[:KEPT_OUTPUT_BYTES], True
