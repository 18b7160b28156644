"""Validate requests and convert between protobuf messages and the engines' types."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1 import inference_pb2_grpc as pb_grpc
from codealign.common import traces
from codealign.common.errors import (
    CodeAlignError,
    ConfigurationError,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from codealign.inference.engines.base import (
    ChatMessage,
    Completion,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    Sample,
    Sampling,
)
from codealign.inference.engines.recording import OtherModelRecorded
from codealign.inference.registry import ModelRegistry
from codealign.inference.sources import SourceUnreachable
from codealign.inference.weights import DoesNotFit

_MAX_SAMPLES = 256
_MAX_STOP = 16
_MAX_TEXTS = 1024
_ASK_HUB_AGAIN_SECONDS = 15.0
_ROLES = ("system", "user", "assistant")
_FINISH_REASONS = {
    FinishReason.END_TOKEN: pb.FINISH_REASON_END_TOKEN,
    FinishReason.STOP_STRING: pb.FINISH_REASON_STOP_STRING,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
    FinishReason.TOOL_CALL: pb.FINISH_REASON_TOOL_CALL,
}

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(pb_grpc.InferenceServiceServicer):
    """`InferenceService` over the loaded models."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[pb.GenerateResponse]:
        """Stream completions as they finish."""
        arrived = time.time()
        engine = self._models.find(request.model, "model")
        model = engine.model
        if request.expected_revision and request.expected_revision != model.revision:
            raise FailedPrecondition(
                f"model {model.name} is revision {model.revision}, not {request.expected_revision}: load that "
                "revision, or request the loaded one"
            )
        # Close explicitly so that a cancelled call frees its slots now instead of at garbage collection.
        async with contextlib.aclosing(engine.generate(_generation(request))) as completions:
            async for completion in completions:
                _trace(completion, model, arrived)
                yield pb.GenerateResponse(completion=_completion(completion), model=model.name, revision=model.revision)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List the loaded models."""
        return pb.ListModelsResponse(models=[_model(model) for model in self._models.models])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return the model by name, or the only one."""
        return pb.GetModelResponse(model=_model(self._models.find(request.name, "name").model))

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:
        """Load a model, or return it if it is already loaded."""
        if not request.source:
            raise InvalidArgument("source", "is missing: give a hub id, a folder or an artifact URL")
        try:
            model = await self._models.open(
                request.source, name=request.name, expected_revision=request.expected_revision
            )
        except ConfigurationError as error:
            raise _refusal(error) from error
        return pb.LoadModelResponse(model=_model(model))

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:
        """Unload a model and free its memory."""
        if not request.name:
            raise InvalidArgument("name", "is missing: give a model name from ListModels")
        await self._models.unload(request.name)
        return pb.UnloadModelResponse()

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """Count the tokens of each text, in order."""
        engine = self._models.find(request.model, "model")
        if len(request.texts) > _MAX_TEXTS:
            raise InvalidArgument("texts", f"has {len(request.texts)} texts; the maximum per request is {_MAX_TEXTS}")
        return pb.CountTokensResponse(counts=await engine.count_tokens(request.texts))

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        """Return the combined load of all engines."""
        load = self._models.load()
        return pb.GetLoadResponse(
            running=load.running,
            waiting=load.waiting,
            slots=load.slots,
            prompt_tokens=load.prompt_tokens,
            cached_prompt_tokens=load.cached_prompt_tokens,
            generated_tokens=load.generated_tokens,
        )


def _trace(completion: Completion, model: ModelInfo, arrived: float) -> None:
    """Record the engine's work on a completion as a span. It includes the time in the engine's queue."""
    now = time.time()
    # https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
    traces.record(
        f"engine {model.engine}",
        max(arrived, now - completion.seconds),  # a recording has the seconds of another time
        now,
        {
            "gen_ai.request.model": model.name,
            "gen_ai.usage.input_tokens": completion.prompt_tokens,
            "gen_ai.usage.output_tokens": completion.generated_tokens,
            "gen_ai.response.finish_reasons": [completion.finish_reason.value],
            "attempt": completion.attempt,
            **(
                {}
                if completion.cached_prompt_tokens is None
                else {"cached_prompt_tokens": completion.cached_prompt_tokens}
            ),
        },
    )


def _refusal(error: ConfigurationError) -> CodeAlignError:
    """Return the status for an error that would end the process at startup.

    The server's state, the network or the source is at fault.
    """
    if isinstance(error, (DoesNotFit, OtherModelRecorded)):
        return FailedPrecondition(str(error))
    if isinstance(error, SourceUnreachable):
        return Unavailable(str(error), retry_after=_ASK_HUB_AGAIN_SECONDS)
    return InvalidArgument("source", str(error))


def _generation(request: pb.GenerateRequest) -> GenerationRequest:
    """Convert a request to the engines' type.

    Raises:
        InvalidArgument: Names every invalid field.
    """
    wrong = [*_wrong_input(request), *_wrong_samples(request), *_wrong_sampling(request.sampling)]
    if request.prefix_chars < 0:
        wrong.append(("prefix_chars", f"is {request.prefix_chars}; must be at least 0"))
    if wrong:
        raise InvalidArgument(violations=wrong)
    sampling = request.sampling
    return GenerationRequest(
        prompt=request.prompt
        if request.WhichOneof("input") == "prompt"
        else tuple(ChatMessage(message.role, message.content) for message in request.chat.messages),
        samples=tuple(Sample(sample.attempt, sample.seed) for sample in request.samples),
        sampling=Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p or 1.0,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            stop=tuple(sampling.stop),
        ),
        prefix_key=request.prefix_key,
        prefix_chars=request.prefix_chars,
    )


def _wrong_input(request: pb.GenerateRequest) -> list[tuple[str, str]]:
    kind = request.WhichOneof("input")
    if kind is None:
        return [("prompt", "is missing: send a prompt or a chat")]
    if kind == "prompt":
        return [] if request.prompt else [("prompt", "is empty: there is nothing to continue")]
    if not request.chat.messages:
        return [("chat.messages", "is empty: send at least one message")]
    return [
        (f"chat.messages[{at}].role", f"is {message.role!r}; must be one of {', '.join(_ROLES)}")
        for at, message in enumerate(request.chat.messages)
        if message.role not in _ROLES
    ]


def _wrong_samples(request: pb.GenerateRequest) -> list[tuple[str, str]]:
    count = len(request.samples)
    if not 1 <= count <= _MAX_SAMPLES:
        return [("samples", f"has {count} samples; must have 1 to {_MAX_SAMPLES}")]
    seen: set[int] = set()
    wrong = []
    for at, sample in enumerate(request.samples):
        if sample.attempt in seen:
            wrong.append((f"samples[{at}].attempt", f"duplicate attempt {sample.attempt}: attempts must be unique"))
        seen.add(sample.attempt)
    return wrong


def _wrong_sampling(sampling: pb.SamplingParameters) -> list[tuple[str, str]]:
    wrong = []
    if not (math.isfinite(sampling.temperature) and 0 <= sampling.temperature <= 2):
        wrong.append(("sampling.temperature", f"is {sampling.temperature}; must be between 0 (greedy) and 2"))
    if not (math.isfinite(sampling.top_p) and 0 <= sampling.top_p <= 1):
        wrong.append(("sampling.top_p", f"is {sampling.top_p}; must be in (0, 1], or 0 for off"))
    if sampling.top_k < 0:
        wrong.append(("sampling.top_k", f"is {sampling.top_k}; must be at least 0"))
    if sampling.max_tokens < 0:
        wrong.append(("sampling.max_tokens", f"is {sampling.max_tokens}; must be at least 0"))
    if len(sampling.stop) > _MAX_STOP:
        wrong.append(("sampling.stop", f"has {len(sampling.stop)} strings; the maximum is {_MAX_STOP}"))
    wrong += [(f"sampling.stop[{at}]", "is empty") for at, text in enumerate(sampling.stop) if not text]
    return wrong


def _completion(completion: Completion) -> pb.Completion:
    return pb.Completion(
        attempt=completion.attempt,
        seed=completion.seed,
        text=completion.text,
        finish_reason=_FINISH_REASONS[completion.finish_reason],
        stop_string=completion.stop_string,
        prompt_tokens=completion.prompt_tokens,
        cached_prompt_tokens=completion.cached_prompt_tokens or 0,
        cached_prompt_tokens_unknown=completion.cached_prompt_tokens is None,
        generated_tokens=completion.generated_tokens,
        seconds=completion.seconds,
        detail=completion.detail,
    )


def _model(model: ModelInfo) -> pb.Model:
    return pb.Model(
        name=model.name,
        source=model.source,
        revision=model.revision,
        engine=model.engine,
        context_length=model.context_length,
        chat_template=model.chat_template,
        batch_invariant=model.batch_invariant,
        dtype=model.dtype,
        device=model.device,
        size_bytes=model.size_bytes,
    )
