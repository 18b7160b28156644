"""Fault-tolerant calls to inference and the sandbox, shared by runs and evaluations."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import (
    CodeAlignError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from codealign.common.logs import get_logger
from codealign.coordinator.ground.faults import (
    HANG_TRIES,
    INTERNAL_TRIES,
    ODD_TRIES,
    TRANSIENT,
    Faulty,
    Refused,
    RunFailed,
    Tries,
    absorb,
)
from codealign.coordinator.ground.ports import Inference, Sandbox
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.waiting import Waiting
from codealign.coordinator.ground.windows import Window

log = get_logger(__name__)
INFRASTRUCTURE_TRIES = 5
KEPT_OUTPUT_BYTES = 4096
"""Bytes of each output stream that a record keeps."""
SAMPLES_OF_CALL = 256
"""Maximum samples per call."""
_EXECUTE_SECONDS = 600.0
_PAUSE_SECONDS = 1.0
_FULL_OR_AWAY = (ResourceExhausted, Unavailable)
_VERDICTS = frozenset(sb.Verdict.values())
_FINISHES = frozenset(inf.FinishReason.values()) - {inf.FINISH_REASON_UNSPECIFIED}


@dataclass
class Completions:
    """Calls to inference, limited by the window."""

    inference: Inference
    tally: StageTally
    window: Window
    """Limits concurrent samples."""
    gate: Callable[[], None]
    """Raises if no new work may start."""
    timeout: float
    """Timeout for one call, in seconds."""
    waiting: Waiting | None = None
    """Records that inference is unavailable."""
    engine: StageTally = field(default_factory=StageTally)
    """Counts the samples of all stages in flight."""
    answered: int = 0
    """Samples answered so far. If there are any, an internal error may be specific to one request."""

    @property
    def answers(self) -> bool:
        """Whether inference has answered anything."""
        return self.answered > 0

    async def of(self, request: inf.GenerateRequest) -> AsyncGenerator[inf.GenerateResponse]:
        """Yield one completion for each of the request's samples, as they arrive.

        After a fault the missing samples are requested again. An invalid response (an attempt that was not requested,
        no completion, another revision) counts as a fault. A request that reaches its deadline HANG_TRIES times is
        given up if the engine answers other requests, or at least a probe, in the meantime. An engine that is slow or
        unavailable for every request is waited for.

        Raises:
            Refused: Inference will never accept this request.
            RunFailed: Retrying cannot help; `Faulty` if inference kept failing internally or never answered this
                request.
        """
        left = {sample.attempt: sample for sample in request.samples}
        tries, hung = Tries(), 0
        while left:
            self.gate()
            before = self.answered
            owed = dict(itertools.islice(left.items(), SAMPLES_OF_CALL))
            asked = len(owed)
            try:
                async with contextlib.aclosing(self._try(request, owed)) as responses:
                    async for response in responses:
                        del left[response.completion.attempt]
                        self.answered += 1
                        yield response
                if owed:
                    raise Internal(f"stream ended without the requested attempts {sorted(owed)}")
            except CodeAlignError as error:
                # Answers received in the meantime show that retrying helps.
                progressed = len(owed) < asked
                if progressed:
                    tries, hung = Tries(), 0
                await self._absorb(error, tries, request)
                if isinstance(error, DeadlineExceeded) and not progressed:
                    # Count consecutive attempts only: if nothing else was answered meanwhile, the hang says nothing
                    # about this request.
                    alone = self.answered > before or await self._answers_a_probe(request)
                    hung = hung + 1 if alone else 0
                if hung >= HANG_TRIES:
                    self._end_waiting()
                    said = f"request timed out after {self.timeout:g} s {hung} times in a row while others succeeded"
                    raise Faulty(f"inference: {said}") from error

    async def _try(
        self, request: inf.GenerateRequest, owed: dict[int, inf.Sample]
    ) -> AsyncGenerator[inf.GenerateResponse]:
        """Make one call for these samples, removing each from `owed` as it arrives."""
        asked = inf.GenerateRequest()
        asked.CopyFrom(request)
        del asked.samples[:]
        asked.samples.extend(owed.values())
        counted = len(owed)
        async with self.window.units(counted) as done:
            self.gate()
            self.tally.begin(counted)
            self.engine.begin(counted)
            try:
                async with contextlib.aclosing(self.inference.generate(asked, timeout=self.timeout)) as responses:
                    async for response in responses:
                        _check(response, request, owed)
                        del owed[response.completion.attempt]
                        counted -= 1
                        self.tally.end()
                        self.engine.end()
                        self._count(response)
                        done()
                        self._end_waiting()
                        yield response
            finally:
                self.tally.end(counted)
                self.engine.end(counted)

    def _count(self, response: inf.GenerateResponse) -> None:
        if self.tally.meter is not None:
            made = response.completion
            cached = None if made.cached_prompt_tokens_unknown else made.cached_prompt_tokens
            self.tally.meter.generated(response.model, made.prompt_tokens, cached, made.generated_tokens)

    async def _absorb(self, error: CodeAlignError, tries: Tries, request: inf.GenerateRequest) -> None:
        if isinstance(error, FailedPrecondition):
            try:
                if await self._serves(request):
                    # The model is served, so the endpoint refuses this one prompt.
                    raise Refused("prompt", error.message) from error
            except CodeAlignError as unknown:  # unavailable by now: the next try reports it
                error = unknown
        if isinstance(error, _FULL_OR_AWAY):
            self.window.refused()
        # While other calls are in flight it is not yet known whether inference answers anything.
        most = ODD_TRIES if self.answers or self.tally.in_flight else INTERNAL_TRIES
        await absorb(error, tries, self.tally, "inference", self.waiting, most_faults=most)

    def _end_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.end(_name_of("inference"))

    async def _answers_a_probe(self, request: inf.GenerateRequest) -> bool:
        """Return whether the engine answers a one-token request to the same model, even if only with a refusal."""
        probe = inf.GenerateRequest(
            model=request.model,
            expected_revision=request.expected_revision,
            prompt="x",
            samples=[inf.Sample()],
            sampling=inf.SamplingParameters(top_p=1.0, max_tokens=1),
        )
        try:
            async with contextlib.aclosing(self.inference.generate(probe, timeout=self.timeout)) as responses:
                async for _ in responses:
                    self.answered += 1
                    return True
        except TRANSIENT:
            return False
        except CodeAlignError as error:
            log.info("probe_refused", error=error.message)
            return not isinstance(error, Internal)
        return False

    async def _serves(self, request: inf.GenerateRequest) -> bool:
        """Return whether the requested model is loaded in the expected revision.

        Raises:
            CodeAlignError: Inference cannot tell.
        """
        try:
            model = (await self.inference.get_model(inf.GetModelRequest(name=request.model))).model
        except (FailedPrecondition, NotFound, InvalidArgument):
            return False
        return request.expected_revision in ("", model.revision)


def _check(response: inf.GenerateResponse, request: inf.GenerateRequest, left: dict[int, inf.Sample]) -> None:
    completion = response.completion
    if not response.HasField("completion"):
        raise Internal("response has no completion")
    if completion.attempt not in left:
        raise Internal(f"response is for attempt {completion.attempt}; expected one of {sorted(left)}")
    if completion.finish_reason not in _FINISHES:
        raise Internal(f"attempt {completion.attempt} has an unknown finish reason ({completion.finish_reason})")
    if request.expected_revision not in ("", response.revision):
        raise Internal(f"response is from revision {response.revision!r}; expected {request.expected_revision!r}")


def _name_of(service: str) -> str:
    return f"the {service} service"


def finish_name(completion: inf.Completion) -> str:
    """Return the engine's name of a finish reason, such as "stop_string" for FINISH_REASON_STOP_STRING."""
    return inf.FinishReason.Name(completion.finish_reason).removeprefix("FINISH_REASON_").lower()


def provenance(response: inf.GenerateResponse) -> pb.Provenance:
    """Return the provenance of a completion."""
    completion = response.completion
    return pb.Provenance(
        model=response.model,
        model_revision=response.revision,
        seed=completion.seed,
        prompt_tokens=completion.prompt_tokens,
        cached_prompt_tokens=completion.cached_prompt_tokens,
        cached_prompt_tokens_unknown=completion.cached_prompt_tokens_unknown,
        generated_tokens=completion.generated_tokens,
        seconds=completion.seconds,
    )


async def execute(
    sandbox: Sandbox,
    request: sb.ExecuteRequest,
    tally: StageTally,
    gate: Callable[[], None],
    window: Window | None = None,
    waiting: Waiting | None = None,
) -> sb.Result | None:
    """Run a program in the sandbox.

    Args:
        sandbox: The sandbox to use.
        request: The program to run.
        tally: Counts retries after infrastructure faults.
        gate: Raises if no new work may start; called between tries only.
        window: Notified of refusals. The caller holds the unit.
        waiting: Records that the sandbox is unavailable.

    Returns:
        The result, with verdict REFUSED if the sandbox rejects the program; None if the infrastructure kept failing.

    Raises:
        RunFailed: Retrying cannot help, or the sandbox does not isolate.
    """
    tries, failed = Tries(), 0
    while True:
        try:
            result = (await sandbox.execute(request, timeout=_EXECUTE_SECONDS)).result
            if result.verdict == sb.VERDICT_UNSPECIFIED:
                raise Internal("response has no verdict")
            if result.verdict not in _VERDICTS:
                raise Internal(f"response has verdict {result.verdict}, which this release does not know")
        except CodeAlignError as error:
            if window is not None and isinstance(error, _FULL_OR_AWAY):
                window.refused()
            try:
                await absorb(error, tries, tally, "sandbox", waiting)
            except Refused as refusal:
                return sb.Result(request_id=request.request_id, verdict=sb.VERDICT_REFUSED, detail=str(refusal))
            gate()
            continue
        if waiting is not None:
            waiting.end(_name_of("sandbox"))
        if result.verdict != sb.VERDICT_INFRASTRUCTURE:
            _check_isolation(result)
            return result
        tally.retry()
        failed += 1
        if failed >= INFRASTRUCTURE_TRIES:
            return None
        await asyncio.sleep(_PAUSE_SECONDS * failed)


def _check_isolation(result: sb.Result) -> None:
    """Reject a result from outside gVisor: it must not be kept, and no other program would fare better."""
    if result.verdict != sb.VERDICT_REFUSED and result.isolation != sb.ISOLATION_GVISOR:
        known = result.isolation in sb.Isolation.values()
        isolation = sb.Isolation.Name(result.isolation).removeprefix("ISOLATION_").lower() if known else "unknown"
        raise RunFailed(
            f"sandbox: runner {result.runner!r} runs programs without gVisor isolation ({isolation}), which is for "
            "debugging only; its results are discarded. Start the gateway with another backend, then resume"
        )


def trim(result: sb.Result) -> None:
    """Truncate a result's streams to the size that a record keeps."""
    for stream in (result.stdout, result.stderr):
        if len(stream.data) > KEPT_OUTPUT_BYTES:
            stream.data, stream.truncated = stream.data[:KEPT_OUTPUT_BYTES], True
