"""The engine's asynchronous face: requests in, completions out; the workers' threads do the work between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import fields

from codealign.inference.engines.base import Completion, GenerationRequest, Load, ModelInfo
from codealign.inference.engines.prompts import Prompts
from codealign.inference.engines.transformers.decoder import Decoder
from codealign.inference.engines.transformers.job import Job
from codealign.inference.engines.transformers.loading import LoadedModel
from codealign.inference.engines.transformers.options import EngineOptions
from codealign.inference.engines.transformers.worker import Worker


class TransformersEngine:
    """An `Engine` over a causal language model of transformers."""

    def __init__(self, loaded: LoadedModel, options: EngineOptions) -> None:
        """Serve a loaded model; its workers start at once."""
        self._tokenizer = loaded.tokenizer
        self._info = loaded.info
        self._prompts = Prompts(loaded.tokenizer, loaded.info)
        self._workers = [
            Worker(Decoder(loaded.model), loaded.tokenizer, loaded.end_tokens, loaded.bytes_per_token, share)
            for share in options.of_each_worker()
        ]
        for worker in self._workers:
            worker.start()

    @property
    def model(self) -> ModelInfo:
        """The model that is served."""
        return self._info

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield completions as they finish; see `Engine.generate`."""
        arrival = time.perf_counter()
        loop = asyncio.get_running_loop()
        finished: asyncio.Queue[Completion | Exception] = asyncio.Queue()
        ids, prefix_tokens = await asyncio.to_thread(self._prompts.encode, request)

        def deliver(item: Completion | Exception) -> None:
            # A loop that was closed meanwhile has no one left who waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(finished.put_nowait, item)

        job = Job(
            ids,
            request.samples,
            request.sampling,
            limit=self._prompts.limit(request, len(ids)),
            prefix_tokens=prefix_tokens,
            arrival=arrival,
            deliver=deliver,
        )
        worker = min(self._workers, key=lambda each: each.samples)
        worker.submit(job)
        try:
            for _ in request.samples:
                item = await finished.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            worker.cancel(job)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens, special tokens not added."""
        return await self._prompts.count(texts)

    def load(self) -> Load:
        """Say what the engine is doing now."""
        loads = [worker.load() for worker in self._workers]
        return Load(**{each.name: sum(getattr(load, each.name) for load in loads) for each in fields(Load)})

    @property
    def fault(self) -> str:
        """None: a fault of the model ends its calls alone."""
        return ""

    async def close(self) -> None:
        """Stop the workers and let go of the model; completions in flight end with `Unavailable`."""
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self._workers))
