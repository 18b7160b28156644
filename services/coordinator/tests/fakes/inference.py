"""Fake inference: a model is a function."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import FailedPrecondition, NotFound
from fakes.control import Control

Writes = Callable[[inf.GenerateRequest, inf.Sample], inf.Completion | Awaitable[inf.Completion]]
"""Returns the model's completion of a sample; an exception becomes the call's error. Attempt and seed are filled in if
both are missing."""
REVISION = "rev-fake"


def echo(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    """Return a text that depends only on the end of the prompt and the seed."""
    return inf.Completion(
        text=f"{request.prompt[-20:].strip()} {sample.seed}", finish_reason=inf.FINISH_REASON_END_TOKEN
    )


class FakeInference:
    """Inference with one or more models, each a function of request and sample.

    Args:
        writes: Default function of the models.
        slots: Number of concurrent samples that GetLoad reports.
    """

    def __init__(self, writes: Writes = echo, *, slots: int = 8) -> None:
        self.control = Control("inference")
        self.writes = writes
        self.slots = slots
        self.running = 0
        self.most_running = 0
        self.requests: list[inf.GenerateRequest] = []
        self.generated = 0
        """Number of returned completions."""
        self.models: dict[str, inf.Model] = {}
        self.writes_of: dict[str, Writes] = {}
        """Functions that replace `writes`, by model."""
        self.add_model("model")

    def add_model(self, name: str, revision: str = REVISION, writes: Writes | None = None, **fields: object) -> None:
        """Add a loaded model; `fields` are those of `Model`."""
        values = {"source": name, "engine": "transformers", "context_length": 4096, "batch_invariant": True} | fields
        self.models[name] = inf.Model(name=name, revision=revision, **values)  # type: ignore[arg-type]
        if writes is not None:
            self.writes_of[name] = writes

    async def generate(self, request: inf.GenerateRequest, *, timeout: float) -> AsyncGenerator[inf.GenerateResponse]:
        """Yield completions in the order in which they finish."""
        asked = inf.GenerateRequest()
        asked.CopyFrom(request)
        self.requests.append(asked)
        async with self.control.call("generate", asked):
            model = self._model(asked.model)
            if asked.expected_revision not in ("", model.revision):
                raise FailedPrecondition(
                    f"model {model.name} has revision {model.revision}, not {asked.expected_revision}"
                )
            tasks = [asyncio.ensure_future(self._write(model, asked, sample)) for sample in asked.samples]
            try:
                for done in asyncio.as_completed(tasks):
                    response = await done
                    self.generated += 1
                    yield response
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, model: inf.Model, request: inf.GenerateRequest, sample: inf.Sample) -> inf.GenerateResponse:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            written = self.writes_of.get(model.name, self.writes)(request, sample)
            completion = await written if inspect.isawaitable(written) else written
        finally:
            self.running -= 1
        if not completion.attempt and not completion.seed:
            completion.attempt, completion.seed = sample.attempt, sample.seed
        completion.prompt_tokens = completion.prompt_tokens or len(request.prompt.split())
        completion.generated_tokens = completion.generated_tokens or max(1, len(completion.text.split()))
        return inf.GenerateResponse(completion=completion, model=model.name, revision=model.revision)

    def _model(self, name: str) -> inf.Model:
        if not self.models:
            raise FailedPrecondition("no model is loaded")
        if not name and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise NotFound(f"no model {name!r} is loaded; loaded: {', '.join(sorted(self.models))}")
        return self.models[name]

    async def get_model(self, request: inf.GetModelRequest) -> inf.GetModelResponse:
        """Return a loaded model."""
        async with self.control.call("get_model", request):
            return inf.GetModelResponse(model=self._model(request.name))

    async def get_load(self, request: inf.GetLoadRequest) -> inf.GetLoadResponse:
        """Return `slots` and the samples in flight."""
        async with self.control.call("get_load", request):
            running = min(self.running, self.slots)
            return inf.GetLoadResponse(running=running, waiting=self.running - running, slots=self.slots)

    async def count_tokens(self, request: inf.CountTokensRequest) -> inf.CountTokensResponse:
        """Count words as tokens."""
        async with self.control.call("count_tokens", request):
            self._model(request.model)
            return inf.CountTokensResponse(counts=[len(text.split()) for text in request.texts])

    async def list_models(self, request: inf.ListModelsRequest) -> inf.ListModelsResponse:
        """Return the loaded models."""
        async with self.control.call("list_models", request):
            return inf.ListModelsResponse(models=[self.models[name] for name in sorted(self.models)])

    async def load_model(self, request: inf.LoadModelRequest) -> inf.LoadModelResponse:
        """Load a model; its revision is the expected one, or derived from its source."""
        async with self.control.call("load_model", request):
            name = request.name or request.source.rstrip("/").rpartition("/")[2]
            there = self.models.get(name)
            if there is not None and there.source != request.source:
                raise FailedPrecondition(f"the name {name} is in use by {there.source}")
            if there is None:
                self.add_model(name, request.expected_revision or f"rev-{name}", source=request.source)
            return inf.LoadModelResponse(model=self.models[name])

    async def unload_model(self, request: inf.UnloadModelRequest) -> inf.UnloadModelResponse:
        """Unload a model."""
        async with self.control.call("unload_model", request):
            if request.name not in self.models:
                raise NotFound(f"no model {request.name!r} is loaded")
            del self.models[request.name]
            return inf.UnloadModelResponse()
