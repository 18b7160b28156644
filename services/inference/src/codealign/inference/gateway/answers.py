"""Reads what workers answer: whether it is a valid completion, and what the end of a call means. Pure."""

from __future__ import annotations

import math
from collections.abc import Container

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import CodeAlignError, Internal, Unavailable, describe, retry_delay
from codealign.inference.gateway.work import RETRY_SECONDS, ModelKey

AT_FAULT = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
"""Statuses that every worker would answer the request with. The gateway sets no deadline of its own; that of an
endpoint behind a worker may pass."""
_TOO_LARGE = "larger than max"
"""In gRPC's own RESOURCE_EXHAUSTED for a message above a limit, which would not pass later either."""
UNLESS_MODEL_GONE = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION})
"""Statuses that mean the same if the worker still has the model: a recording without the prompt. Otherwise the model
was unloaded or the worker restarted."""

STOPS = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED})
"""Statuses of calls to a server that stops or is lost, which say nothing about the request or how the server works."""
_FINISH_REASONS = frozenset(pb.FinishReason.values()) - {pb.FINISH_REASON_UNSPECIFIED}


_MOST_SLOTS = 2**20
"""More than any worker has. The sum over all workers must fit into the contract's 32 bits."""
_LAST_VERSION = 2**62
"""Far beyond any clock, and with room for later versions in the contract's 64 bits."""


class Relayed(CodeAlignError):
    """A worker's error, passed on to the caller with its details.

    Args:
        error: The worker's status.
        prefix: Text before its message.
    """

    def __init__(self, error: grpc.aio.AioRpcError, prefix: str = "") -> None:
        super().__init__(prefix + describe(error))
        self.code = error.code()
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has what it reads
        self._details = list(status.details) if status else []

    def to_status(self) -> status_pb2.Status:
        """Return the error as a rich status."""
        status = super().to_status()
        status.details.extend(self._details)
        return status


def is_at_fault(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a request itself is at fault: every worker would give this answer, now and later."""
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _TOO_LARGE in (error.details() or "")
    return error.code() in AT_FAULT


def passed_on(error: grpc.aio.AioRpcError, worker: str) -> CodeAlignError:
    """Return what to tell the caller of a call that a worker failed, and no other could take.

    Args:
        error: The worker's status.
        worker: Its address.
    """
    prefix = f"worker {worker}: "
    try:
        if error.code() in STOPS:  # without a delay, or as if the caller had cancelled
            return Unavailable(prefix + describe(error), retry_after=retry_delay(error) or RETRY_SECONDS)
        return Relayed(error, prefix)
    except Exception as unreadable:  # details that contradict the error
        return Internal(f"{prefix}{describe(error)} (the error's details are invalid: {unreadable})")


def objection(response: pb.GenerateResponse, key: ModelKey, seeds: dict[int, int], owed: Container[int]) -> str:
    """Return why a response cannot be an answer to what was asked, or "".

    Args:
        response: What the worker sent.
        key: The model that was asked for.
        seeds: Seeds by attempt of all samples that were asked for.
        owed: Attempts that are unanswered.
    """
    completion = response.completion
    if response.model != key.name or response.revision != key.revision:
        return f"it answered for {response.model!r} at revision {response.revision!r}"
    if completion.attempt not in owed:
        return f"it answered attempt {completion.attempt}, which it does not owe"
    if completion.seed != seeds[completion.attempt]:
        return f"it answered attempt {completion.attempt} with another seed"
    if completion.finish_reason not in _FINISH_REASONS:
        return f"it gave the unknown finish reason {completion.finish_reason}"
    tokens = completion.prompt_tokens, completion.cached_prompt_tokens, completion.generated_tokens
    if min(tokens) < 0 or not (math.isfinite(completion.seconds) and completion.seconds >= 0):
        return "its counts are impossible"
    return ""


def objection_to_report(report: pb.SyncModelsResponse) -> str:
    """Return why a worker's report cannot be true, or "". It would harm other workers and gateways too."""
    for model in report.models:
        if not model.name or not model.revision:
            return f"it has model {model.name!r} at revision {model.revision!r}"
        if not 0 <= model.slots <= _MOST_SLOTS:
            return f"it has {model.slots} slots for {model.name}"
    for entry in report.wanted:
        if not entry.name or not 0 < entry.version <= _LAST_VERSION:
            return f"it keeps version {entry.version} of what is wanted for model {entry.name!r}"
    return ""
