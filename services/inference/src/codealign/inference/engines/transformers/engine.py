"""The engine's asynchronous face: requests in, completions out; the worker's thread does the work between."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from codealign.common.errors import InvalidArgument
from codealign.inference.engines.base import Completion, GenerationRequest, Load, ModelInfo
from codealign.inference.engines.transformers.decoder import Decoder
from codealign.inference.engines.transformers.job import Job
from codealign.inference.engines.transformers.loading import LoadedModel
from codealign.inference.engines.transformers.options import EngineOptions
from codealign.inference.engines.transformers.worker import Worker


class TransformersEngine:
    """An `Engine` over a causal language model of transformers."""

    def __init__(self, loaded: LoadedModel, options: EngineOptions) -> None:
        """Serve a loaded model; its worker starts at once."""
        self._tokenizer = loaded.tokenizer
        self._info = loaded.info
        self._worker = Worker(
            Decoder(loaded.model), loaded.tokenizer, loaded.end_tokens, loaded.bytes_per_token, options
        )
        self._worker.start()

    @property
    def model(self) -> ModelInfo:
        """The model that is served."""
        return self._info

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield completions as they finish; see `Engine.generate`."""
        arrival = time.perf_counter()
        loop = asyncio.get_running_loop()
        finished: asyncio.Queue[Completion | Exception] = asyncio.Queue()
        ids, prefix_tokens = await asyncio.to_thread(self._encode, request)

        def deliver(item: Completion | Exception) -> None:
            # A loop that was closed meanwhile has no one left who waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(finished.put_nowait, item)

        job = Job(
            ids,
            request.samples,
            request.sampling,
            limit=self._limit(request, len(ids)),
            prefix_tokens=prefix_tokens,
            arrival=arrival,
            deliver=deliver,
        )
        self._worker.submit(job)
        try:
            for _ in request.samples:
                item = await finished.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._worker.cancel(job)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens, special tokens not added."""
        if not texts:
            return []
        encoded = await asyncio.to_thread(self._tokenizer, list(texts), add_special_tokens=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def load(self) -> Load:
        """Say what the engine is doing now."""
        return self._worker.load()

    async def close(self) -> None:
        """Stop the worker; completions in flight end with `Unavailable`."""
        await asyncio.to_thread(self._worker.stop)

    def _encode(self, request: GenerationRequest) -> tuple[list[int], int]:
        """The prompt's tokens, and how many of them lie within the announced prefix."""
        if isinstance(request.prompt, str):
            encoded = self._tokenizer(request.prompt, return_offsets_mapping=request.prefix_chars > 0)
        else:
            if not self._info.chat_template:
                raise InvalidArgument(
                    "chat", f"model {self._info.name} has no chat template: send a prompt, or use a tuned model"
                )
            messages = [{"role": message.role, "content": message.content} for message in request.prompt]
            try:
                text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # a template may raise anything about the messages' order or roles
                raise InvalidArgument("chat", f"the model's chat template refuses it: {error}") from error
            # The template writes the special tokens itself.
            encoded = self._tokenizer(text, add_special_tokens=False)
        ids: list[int] = encoded["input_ids"]
        ends = [end for _, end in encoded.get("offset_mapping", ())]
        return ids, sum(end <= request.prefix_chars for end in ends)

    def _limit(self, request: GenerationRequest, prompt_tokens: int) -> int:
        """New tokens at most."""
        field = "prompt" if isinstance(request.prompt, str) else "chat"
        if prompt_tokens == 0:
            raise InvalidArgument(field, "is empty: there is nothing to continue")
        room = self._info.context_length - prompt_tokens
        if room < 1:
            raise InvalidArgument(
                field,
                f"has {prompt_tokens} tokens; the model's context holds {self._info.context_length} with at least one "
                "new token: shorten it",
            )
        return min(request.sampling.max_tokens or room, room)
