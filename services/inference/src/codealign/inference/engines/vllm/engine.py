"""Engine over vLLM's AsyncLLM, which batches, caches prefixes and runs the model in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codealign.common.errors import FailedPrecondition, Internal, Unavailable
from codealign.inference import metrics
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, Load, ModelInfo, Sample
from codealign.inference.engines.fanout import Fanout
from codealign.inference.engines.prompts import Prompts
from codealign.inference.engines.stops import first_stop

_GONE = "vLLM's engine process died (see its log); the server exits and must be restarted"


@dataclass(frozen=True, slots=True)
class RunningVllm:
    """vLLM serving one model."""

    llm: Any
    """An AsyncLLM."""
    tokenizer: Any
    end_tokens: frozenset[int]
    slots: int
    """Maximum number of sequences decoded at once."""
    info: ModelInfo
    sleep_level: int = 0
    """Level of vLLM's sleep mode. 0: it was not started with it."""
    revision_now: Callable[[], str] | None = None
    """Returns the revision of the files that level 2 reads again, which may have changed since. Blocks."""


class VllmEngine:
    """An `Engine` over AsyncLLM; sends one vLLM request per sample, since each sample has its own seed.

    Args:
        running: What vLLM runs; an adapter's has the `llm` of its base.
        max_waiting: Maximum number of waiting samples.
        host: The engine of the base, for an adapter.
        adapter: vLLM's LoRARequest, for an adapter.
    """

    def __init__(
        self, running: RunningVllm, max_waiting: int, host: VllmEngine | None = None, adapter: Any = None
    ) -> None:
        self.running = running
        self.host = host
        """The engine of the base, if this one is an adapter on it."""
        self.adapters: dict[str, VllmEngine] = {}
        """Adapters on this engine, by the models' names."""
        self._adapter = adapter
        self._adapter_numbers = itertools.count(1)
        self._llm = running.llm
        self._info = running.info
        self._end_tokens = sorted(running.end_tokens)
        self._prompts = Prompts(running.tokenizer, running.info)
        self._samples = Fanout(running.slots, max_waiting)
        self._numbers = itertools.count()
        self._closed = self._asleep = False

    @property
    def model(self) -> ModelInfo:
        """The model that is served."""
        return self._info

    @property
    def is_open(self) -> bool:
        """Whether it serves: it was not closed and does not sleep."""
        return not self._closed and not self._asleep

    @property
    def can_sleep(self) -> bool:
        """Whether vLLM was started with its sleep mode. An adapter has no memory of its own to give back."""
        return self.running.sleep_level > 0 and self.host is None

    @property
    def fault(self) -> str:
        """Set when vLLM's engine process has died."""
        return _GONE if not self._closed and self._llm.errored else ""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield completions as they finish; see `Engine.generate`."""
        arrival = time.perf_counter()
        ids, _ = await asyncio.to_thread(self._prompts.encode, request)
        limit = self._prompts.limit(request, len(ids))
        self._samples.require_room(request)

        async def write(sample: Sample, arrival: float) -> Completion:
            output = await self._final_output(ids, self._parameters(request, sample, limit))
            _observe(output.metrics)
            return _completion(sample, output, request.sampling.stop, arrival)

        async with contextlib.aclosing(self._samples.run(request, write, arrival)) as completions:
            async for completion in completions:
                yield completion

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        return await self._prompts.count(texts)

    def load(self) -> Load:
        """Return the current load; vLLM itself decides which samples run."""
        return self._samples.load()

    async def close(self) -> None:
        """Cancel samples in flight with `Unavailable`, then free the memory.

        An adapter is removed from its base. A base closes its adapters first, then stops vLLM's processes.
        """
        if self._closed:
            return
        self._closed = True
        for adapter in list(self.adapters.values()):
            await adapter.close()
        await self._samples.close()
        if self.host is None:
            await asyncio.to_thread(self._llm.shutdown)
            return
        self.host.adapters.pop(self._info.name, None)
        if not self._llm.errored:
            await self._llm.remove_lora(self._adapter.lora_int_id)

    async def sleep(self) -> None:
        """Give the GPU's memory back; see `Sleeper`. The adapters are closed, and the cached prefixes are lost."""
        self._asleep = True
        for adapter in list(self.adapters.values()):
            await adapter.close()
        await self._samples.close()
        await self._llm.sleep(level=self.running.sleep_level)

    async def wake_up(self) -> None:
        """Take the GPU's memory again; see `Sleeper`."""
        if self.running.sleep_level == 2:  # its weights are gone
            if self.running.revision_now is not None:
                now = await asyncio.to_thread(self.running.revision_now)
                if now != self._info.revision:
                    raise FailedPrecondition(
                        f"the files of {self._info.source} have changed while it slept: they are revision {now}, not "
                        f"{self._info.revision}"
                    )
            await self._llm.wake_up(tags=["weights"])
            await self._llm.collective_rpc("reload_weights")
            await self._llm.wake_up(tags=["kv_cache"])
        else:
            await self._llm.wake_up()
        self._samples.reopen()
        self._asleep = False

    async def add_adapter(self, running: RunningVllm, max_waiting: int, folder: Path) -> VllmEngine:
        """Load an adapter and return its engine.

        Args:
            running: The adapter's model, with this engine's `llm`.
            max_waiting: Maximum number of the adapter's waiting samples.
            folder: The adapter's files in PEFT's layout.

        Raises:
            Unavailable: The base was unloaded meanwhile.
            Exception: vLLM cannot load it.
        """
        from vllm.lora.request import LoRARequest

        number = next(self._adapter_numbers)
        request = LoRARequest(lora_name=running.info.revision, lora_int_id=number, lora_path=str(folder))
        await self._llm.add_lora(request)
        if not self.is_open:
            raise Unavailable(f"{self._info.name} was unloaded meanwhile: load it again, then the adapter")
        engine = VllmEngine(running, max_waiting, host=self, adapter=request)
        self.adapters[running.info.name] = engine
        return engine

    def _parameters(self, request: GenerationRequest, sample: Sample, limit: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=limit,
            stop=list(sampling.stop),
            # Named explicitly, so that they are the same as in the other engines.
            ignore_eos=True,
            stop_token_ids=self._end_tokens,
            seed=None if sampling.temperature == 0 else sample.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def _final_output(self, ids: list[int], parameters: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        number = f"codealign-{next(self._numbers)}"
        final = None
        try:
            # Cancelling the task aborts the request, through AsyncLLM's generator.
            prompt = {"prompt_token_ids": ids}
            async for output in self._llm.generate(prompt, parameters, number, lora_request=self._adapter):
                final = output
        except EngineDeadError as error:
            raise Unavailable(_GONE) from error
        except Exception as error:
            if self._llm.errored:
                raise Unavailable(_GONE) from error
            cause = error.__cause__ or error
            raise Internal(f"vLLM failed: {type(cause).__name__}: {cause}") from error
        if final is None or not final.finished:
            raise Unavailable("vLLM ended the request before it finished: retry it")
        return final


def _observe(stats: Any) -> None:
    """Count a request's times by vLLM's statistics. `vllm_args` may switch them off."""
    if stats is not None:
        metrics.QUEUE_SECONDS.observe(max(0.0, stats.scheduled_ts - stats.queued_ts))
        metrics.FIRST_TOKEN_SECONDS.observe(stats.first_token_latency)


def _completion(sample: Sample, output: Any, stop: Sequence[str], arrival: float) -> Completion:
    written = output.outputs[0]
    text, stop_string = written.text, written.stop_reason if isinstance(written.stop_reason, str) else ""
    if found := first_stop(text, stop):
        # If one step produces several stop strings, vLLM takes the first of its list, not of the text.
        at, stop_string = found
        text, reason = text[:at], FinishReason.STOP_STRING
    elif written.finish_reason == "length":
        reason = FinishReason.LENGTH
    elif written.finish_reason == "stop":
        reason = FinishReason.STOP_STRING if stop_string else FinishReason.END_TOKEN
    else:
        raise Unavailable(f"vLLM ended the request with finish reason {written.finish_reason}: retry it")
    return Completion(
        attempt=sample.attempt,
        seed=sample.seed,
        text=text,
        finish_reason=reason,
        stop_string=stop_string,
        prompt_tokens=len(output.prompt_token_ids),
        cached_prompt_tokens=output.num_cached_tokens,
        generated_tokens=len(written.token_ids),
        seconds=time.perf_counter() - arrival,
    )
