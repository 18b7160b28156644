"""Conversion between protobuf messages and the engines' types, and the checks of requests."""

from __future__ import annotations

import math

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.inference.engines.base import (
    ChatMessage,
    Completion,
    FinishReason,
    GenerationRequest,
    Load,
    ModelInfo,
    Sample,
    Sampling,
)

_MAX_TEXTS = 1024
_MAX_SAMPLES = 256
_MAX_STOP = 16
_ROLES = ("system", "user", "assistant")
_FINISH_REASONS = {
    FinishReason.END_TOKEN: pb.FINISH_REASON_END_TOKEN,
    FinishReason.STOP_STRING: pb.FINISH_REASON_STOP_STRING,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
    FinishReason.TOOL_CALL: pb.FINISH_REASON_TOOL_CALL,
}


def check(request: pb.GenerateRequest) -> None:
    """Check a request.

    Raises:
        InvalidArgument: Names every invalid field.
    """
    wrong = [*_wrong_input(request), *_wrong_samples(request), *_wrong_sampling(request.sampling)]
    if request.prefix_chars < 0:
        wrong.append(("prefix_chars", f"is {request.prefix_chars}; must be at least 0"))
    if wrong:
        raise InvalidArgument(violations=wrong)


def check_texts(request: pb.CountTokensRequest) -> None:
    """Check a request.

    Raises:
        InvalidArgument: It has too many texts.
    """
    if len(request.texts) > _MAX_TEXTS:
        raise InvalidArgument("texts", f"has {len(request.texts)} texts; the maximum per request is {_MAX_TEXTS}")


def check_load(request: pb.LoadModelRequest) -> None:
    """Check a request.

    Raises:
        InvalidArgument: The source is missing.
    """
    if not request.source:
        raise InvalidArgument("source", "is missing: give a hub id, a folder or an artifact URL")


def check_unload(request: pb.UnloadModelRequest) -> None:
    """Check a request.

    Raises:
        InvalidArgument: The name is missing.
    """
    if not request.name:
        raise InvalidArgument("name", "is missing: give a model name from ListModels")


def generation(request: pb.GenerateRequest) -> GenerationRequest:
    """Convert a request to the engines' type.

    Raises:
        InvalidArgument: Names every invalid field.
    """
    check(request)
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


def completion_message(completion: Completion) -> pb.Completion:
    """Convert a completion."""
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


def load_message(load: Load) -> pb.GetLoadResponse:
    """Convert the load of an engine, or of several."""
    return pb.GetLoadResponse(
        running=load.running,
        waiting=load.waiting,
        slots=load.slots,
        prompt_tokens=load.prompt_tokens,
        cached_prompt_tokens=load.cached_prompt_tokens,
        generated_tokens=load.generated_tokens,
    )


def model_message(model: ModelInfo, slots: int) -> pb.Model:
    """Convert a model's description; `slots` is the number of samples that its engine decodes at once."""
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
        slots=slots,
        unproved=model.unproved,
        base=model.base,
    )
