"""The service over the models that are loaded in this process."""

from __future__ import annotations

import contextlib
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
from codealign.inference import wire
from codealign.inference.duty import Duty
from codealign.inference.engines.base import Completion, Engine, ModelInfo
from codealign.inference.engines.recording import OtherModelRecorded
from codealign.inference.registry import ModelRegistry
from codealign.inference.sources import SourceUnreachable
from codealign.inference.wanted import WantedModels
from codealign.inference.weights import DoesNotFit

_ASK_HUB_AGAIN_SECONDS = 15.0

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(pb_grpc.InferenceServiceServicer):
    """`InferenceService` over the loaded models.

    Args:
        models: The loaded models.
        duty: Set if this server is a worker.
    """

    def __init__(self, models: ModelRegistry, duty: Duty | None = None) -> None:
        self._models = models
        self._duty = duty
        self._wanted = WantedModels()

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
        async with (
            self._duty.lent() if self._duty else contextlib.nullcontext(),
            contextlib.aclosing(engine.generate(wire.generation(request))) as completions,
        ):
            async for completion in completions:
                _trace(completion, model, arrived)
                yield pb.GenerateResponse(
                    completion=wire.completion_message(completion), model=model.name, revision=model.revision
                )

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List the loaded models."""
        return pb.ListModelsResponse(models=[_model(engine) for engine in self._models.engines])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return the model by name, or the only one."""
        return pb.GetModelResponse(model=_model(self._models.find(request.name, "name")))

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:
        """Load a model, or return it if it is already loaded."""
        wire.check_load(request)
        try:
            model = await self._models.open(
                request.source, name=request.name, expected_revision=request.expected_revision
            )
        except (ConfigurationError, CodeAlignError) as error:
            refusal = error if isinstance(error, CodeAlignError) else _refusal(error)
            if self._duty and not isinstance(refusal, Unavailable):
                self._duty.refused(request.name)
            raise refusal from error
        return pb.LoadModelResponse(model=_model(self._models.find(model.name, "name")))

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:
        """Unload a model and free its memory."""
        wire.check_unload(request)
        await self._models.unload(request.name, may_sleep=request.may_sleep)
        return pb.UnloadModelResponse()

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """Count the tokens of each text, in order."""
        engine = self._models.find(request.model, "model")
        wire.check_texts(request)
        return pb.CountTokensResponse(counts=await engine.count_tokens(request.texts))

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        """Return the combined load of all engines."""
        return wire.load_message(self._models.load())

    async def SyncModels(self, request: pb.SyncModelsRequest, context: Context) -> pb.SyncModelsResponse:
        """Keep for gateways which models are to be served, and tell which are loaded here."""
        self._wanted.merge(request.wanted, int(time.time() * 1000))
        if self._duty:
            await self._duty.told(self._wanted.wanted, {model.name for model in self._models.models})
        return pb.SyncModelsResponse(
            wanted=self._wanted.entries, models=[_model(engine) for engine in self._models.engines]
        )


def _model(engine: Engine) -> pb.Model:
    return wire.model_message(engine.model, engine.load().slots)


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
