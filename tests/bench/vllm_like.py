"""A worker with the latencies and the prefix cache of vLLM on a GPU, without a model.

    python -m tests.bench.vllm_like       # reads CODEALIGN_INFERENCE_*

The rates are rough values for a 7B model on a data-center GPU. They only matter relative to each other: a completion
takes one to two seconds, a prompt whose prefix is not cached another tenth of a second of the whole engine.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from codealign.api.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from codealign.common.server import Readiness, Registration, serve
from codealign.inference import metrics
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, Load, ModelInfo, Sample
from codealign.inference.engines.fanout import Fanout
from codealign.inference.engines.simulated.draws import Draws
from codealign.inference.main import CALLERS, SERVICE
from codealign.inference.registry import ModelRegistry
from codealign.inference.servicer import InferenceServicer
from codealign.inference.settings import InferenceSettings

NAME = "vllm-like"
_CHARS_PER_TOKEN = 4
_PREFILL_TOKENS_PER_SECOND = 15_000.0
_STEP_SECONDS = 0.02
"""One token of every running sample."""
_PREFIXES = 16
"""Prefixes that fit into the cache; the one that was not used for longest is dropped."""


class VllmLike:
    """Sleeps as long as vLLM would compute. Its texts depend on prompt and seed only."""

    def __init__(self, name: str, slots: int, max_waiting: int) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._prefill = asyncio.Lock()
        self._samples = Fanout(slots, max_waiting)
        self._prefixes: collections.OrderedDict[str, None] = collections.OrderedDict()
        self.model = ModelInfo(name, NAME, "1" * 64, NAME, 8192, "", True, "bfloat16", "cuda:0", 0)
        self.fault = ""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        arrival = time.perf_counter()
        self._samples.require_room(request)
        assert isinstance(request.prompt, str)
        prompt_tokens = len(request.prompt) // _CHARS_PER_TOKEN

        async def write(sample: Sample, arrival: float) -> Completion:
            async with self._slots:
                cached = await self._prompt(request, prompt_tokens)
                draws = Draws(request.prompt, sample.seed)
                tokens = min(request.sampling.max_tokens, 20 + draws.below(80))
                await asyncio.sleep(tokens * _STEP_SECONDS)
                text = f"{draws.below(10**9)}"
                seconds = time.perf_counter() - arrival
                return Completion(
                    sample.attempt,
                    sample.seed,
                    text,
                    FinishReason.END_TOKEN,
                    "",
                    prompt_tokens,
                    cached,
                    tokens,
                    seconds,
                )

        async with contextlib.aclosing(self._samples.run(request, write, arrival)) as completions:
            async for completion in completions:
                yield completion

    async def _prompt(self, request: GenerationRequest, tokens: int) -> int:
        """Compute a prompt, which takes the whole engine, and return how many of its tokens were cached."""
        async with self._prefill:
            prefix = request.prefix_chars // _CHARS_PER_TOKEN
            cached = prefix if request.prefix_key in self._prefixes else 0
            await asyncio.sleep((tokens - cached) / _PREFILL_TOKENS_PER_SECOND)
            self._prefixes[request.prefix_key] = None
            self._prefixes.move_to_end(request.prefix_key)
            if len(self._prefixes) > _PREFIXES:
                self._prefixes.popitem(last=False)
            return cached

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) // _CHARS_PER_TOKEN for text in texts]

    def load(self) -> Load:
        return self._samples.load()

    async def close(self) -> None:
        await self._samples.close()


class _Opener:
    only_one = ""

    def __init__(self, settings: InferenceSettings) -> None:
        self._settings = settings

    def key_of(self, source: str) -> str:
        return source

    def name_of(self, source: str) -> str:
        return source

    async def open(self, source: str, name: str, expected_revision: str) -> VllmLike:
        return VllmLike(name, self._settings.slots, self._settings.max_waiting)


@contextlib.asynccontextmanager
async def _build(settings: InferenceSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    models = ModelRegistry(_Opener(settings))
    metrics.watch(models.load)
    await models.open(NAME)
    try:
        yield [Registration(SERVICE, add_InferenceServiceServicer_to_server, InferenceServicer(models), CALLERS)]
    finally:
        await models.close()


if __name__ == "__main__":
    serve("inference", InferenceSettings, _build)
