"""Calls to inference and to the sandbox that outlast faults of the infrastructure. Runs and evaluations share them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

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
"""Of each stream, what a record keeps."""
SAMPLES_OF_CALL = 256
"""Samples that one call may ask for, at most."""
_EXECUTE_SECONDS = 600.0
_PAUSE_SECONDS = 1.0
_FULL_OR_AWAY = (ResourceExhausted, Unavailable)
_VERDICTS = frozenset(sb.Verdict.values())
_FINISHES = frozenset(inf.FinishReason.values()) - {inf.FINISH_REASON_UNSPECIFIED}


@dataclass
class Completions:
    """Calls to inference, as many at once as the window allows."""

    inference: Inference
    tally: StageTally
    window: Window
    """Samples at once."""
    gate: Callable[[], None]
    """Raises where no new work may start."""
    timeout: float
    """Seconds for one call."""
    waiting: Waiting | None = None
    """Told when inference is away."""
    answered: int = 0
    """Samples that it has answered: where there are any, an error of its own may be due to the one request."""

    @property
    def answers(self) -> bool:
        """Whether it has answered anything."""
        return self.answered > 0

    async def of(self, request: inf.GenerateRequest) -> AsyncGenerator[inf.GenerateResponse]:
        """One completion for each of the request's samples, as they come.

        After a fault the samples that are still owed are asked for again. An answer that cannot be right (an attempt
        that was not asked for, no completion, another revision) is such a fault. A request that reaches its deadline
        HANG_TRIES times is given up where the engine answers others meanwhile, or at least a probe: an engine that is
        slow or away for everybody is waited for.

        Raises:
            Refused: Inference will never carry this request out.
            RunFailed: Another try cannot mend what went wrong; `Faulty` where inference kept failing inside, or never
                answered this request.
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
                    raise Internal(f"the stream ended without attempts {sorted(owed)}, which were asked for")
            except CodeAlignError as error:
                # What was answered meanwhile shows that tries help.
                progressed = len(owed) < asked
                if progressed:
                    tries, hung = Tries(), 0
                await self._absorb(error, tries, request)
                if isinstance(error, DeadlineExceeded) and not progressed:
                    # Consecutive attempts: one during which nothing else was answered says nothing about this request.
                    alone = self.answered > before or await self._answers_a_probe(request)
                    hung = hung + 1 if alone else 0
                if hung >= HANG_TRIES:
                    self._end_waiting()
                    said = f"no answer to this request within {self.timeout:g} s, {hung} times, while it answers others"
                    raise Faulty(f"inference: {said}") from error

    async def _try(
        self, request: inf.GenerateRequest, owed: dict[int, inf.Sample]
    ) -> AsyncGenerator[inf.GenerateResponse]:
        """One call for these samples; each is taken out as it comes."""
        asked = inf.GenerateRequest()
        asked.CopyFrom(request)
        del asked.samples[:]
        asked.samples.extend(owed.values())
        counted = len(owed)
        async with self.window.units(counted) as done:
            self.gate()
            self.tally.begin(counted)
            try:
                async with contextlib.aclosing(self.inference.generate(asked, timeout=self.timeout)) as responses:
                    async for response in responses:
                        _check(response, request, owed)
                        del owed[response.completion.attempt]
                        counted -= 1
                        self.tally.end()
                        done()
                        self._end_waiting()
                        yield response
            finally:
                self.tally.end(counted)

    async def _absorb(self, error: CodeAlignError, tries: Tries, request: inf.GenerateRequest) -> None:
        if isinstance(error, FailedPrecondition):
            try:
                if await self._serves(request):
                    # Not the model: the endpoint refuses this one prompt.
                    raise Refused("prompt", error.message) from error
            except CodeAlignError as unknown:  # away by now: the next try tells
                error = unknown
        if isinstance(error, _FULL_OR_AWAY):
            self.window.refused()
        # While others are on their way, nobody knows yet whether it answers anything.
        most = ODD_TRIES if self.answers or self.tally.in_flight else INTERNAL_TRIES
        await absorb(error, tries, self.tally, "inference", self.waiting, most_faults=most)

    def _end_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.end(_name_of("inference"))

    async def _answers_a_probe(self, request: inf.GenerateRequest) -> bool:
        """Return whether the engine answers a request for one token of the same model, if only with a refusal."""
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
        """The model that a request names is there, in the revision that it expects.

        Raises:
            CodeAlignError: Inference cannot say.
        """
        try:
            model = (await self.inference.get_model(inf.GetModelRequest(name=request.model))).model
        except (FailedPrecondition, NotFound, InvalidArgument):
            return False
        return request.expected_revision in ("", model.revision)


def _check(response: inf.GenerateResponse, request: inf.GenerateRequest, left: dict[int, inf.Sample]) -> None:
    completion = response.completion
    if not response.HasField("completion"):
        raise Internal("it answered without a completion")
    if completion.attempt not in left:
        raise Internal(f"it answered with attempt {completion.attempt}, where {sorted(left)} were asked for")
    if completion.finish_reason not in _FINISHES:
        raise Internal(f"attempt {completion.attempt} ended for a reason that is unknown ({completion.finish_reason})")
    if request.expected_revision not in ("", response.revision):
        raise Internal(f"it answered with revision {response.revision!r}, not {request.expected_revision!r}")


def _name_of(service: str) -> str:
    return f"the {service} service"


def finish_name(completion: inf.Completion) -> str:
    """The engine's name for why generation ended: FINISH_REASON_STOP_STRING is "stop_string"."""
    return inf.FinishReason.Name(completion.finish_reason).removeprefix("FINISH_REASON_").lower()


def provenance(response: inf.GenerateResponse) -> pb.Provenance:
    """How a completion came to be."""
    completion = response.completion
    return pb.Provenance(
        model=response.model,
        model_revision=response.revision,
        seed=completion.seed,
        prompt_tokens=completion.prompt_tokens,
        cached_prompt_tokens=completion.cached_prompt_tokens,
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
        sandbox: Where.
        request: What to run.
        tally: Counts the tries that the infrastructure cost.
        gate: Raises where no new work may start; asked between two tries alone.
        window: Told of refusals. The caller holds the unit.
        waiting: Told when the sandbox is away.

    Returns:
        Its result, REFUSED where the sandbox does not take the program; None where the infrastructure kept failing.

    Raises:
        RunFailed: Another try cannot mend what went wrong, or the sandbox does not isolate.
    """
    tries, failed = Tries(), 0
    while True:
        try:
            result = (await sandbox.execute(request, timeout=_EXECUTE_SECONDS)).result
            if result.verdict == sb.VERDICT_UNSPECIFIED:
                raise Internal("it answered without a verdict")
            if result.verdict not in _VERDICTS:
                raise Internal(f"it answered with verdict {result.verdict}, which this release does not know")
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
        tally.retries += 1
        failed += 1
        if failed >= INFRASTRUCTURE_TRIES:
            return None
        await asyncio.sleep(_PAUSE_SECONDS * failed)


def _check_isolation(result: sb.Result) -> None:
    """What ran without gVisor around it must never be kept, and no other program would fare better."""
    if result.verdict != sb.VERDICT_REFUSED and result.isolation != sb.ISOLATION_GVISOR:
        known = result.isolation in sb.Isolation.values()
        isolation = sb.Isolation.Name(result.isolation).removeprefix("ISOLATION_").lower() if known else "unknown"
        raise RunFailed(
            f"sandbox: runner {result.runner!r} executes without gVisor's isolation ({isolation}), which is for "
            "debugging alone: nothing of it is kept. Start the gateway with another backend, then resume"
        )


def trim(result: sb.Result) -> None:
    """Cut a result's streams to what a record keeps."""
    for stream in (result.stdout, result.stderr):
        if len(stream.data) > KEPT_OUTPUT_BYTES:
            stream.data, stream.truncated = stream.data[:KEPT_OUTPUT_BYTES], True
