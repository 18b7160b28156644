"""An engine without a model: synthetic completions that follow recorded statistics, for load and fault tests.

The prompt, the sampling parameters, the sample's seed, the engine's seed and the profile determine a completion; the
rest of the batch and the time of the request do not. Completions take time only by sleeping; slots, queue and refusals
work as in the other engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from codealign.common.errors import InvalidArgument
from codealign.common.logs import get_logger
from codealign.inference import metrics
from codealign.inference.engines.base import (
    Completion,
    FinishReason,
    GenerationRequest,
    Load,
    ModelInfo,
    Sample,
)
from codealign.inference.engines.fanout import Fanout
from codealign.inference.engines.simulated import texts
from codealign.inference.engines.simulated.draws import Draws
from codealign.inference.engines.simulated.profile import ANSWER, CUT_OFF, LIST, PASSED, Profile
from codealign.inference.engines.simulated.wanted import Wanted, read, text_of
from codealign.inference.engines.stops import first_stop

log = get_logger(__name__)

_TEMPLATE = "(simulated: a conversation's last message is what is answered)"


class SimulatedEngine:
    """Generates synthetic completions; see the module's docstring.

    Args:
        profile: Recorded statistics of the simulated model.
        name: The model's name in requests. Empty: the profile's name.
        slots: Maximum number of samples that run at once.
        max_waiting: Maximum number of samples that wait for a slot.
        max_context: Limit on prompt plus completion tokens, if lower than the profile's. 0: the profile's.
        speed: Speed relative to the recording. 0: no delay.
        seed: Seed of the simulation; a different seed gives different completions.
        sleep: Sleeps for a number of seconds.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        name: str = "",
        slots: int = 16,
        max_waiting: int = 1024,
        max_context: int = 0,
        speed: float = 1.0,
        seed: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._profile = profile
        self._speed = speed
        self._sleep = sleep
        self._slots = asyncio.Semaphore(slots)
        self._samples = Fanout(slots, max_waiting)
        identity = f"{profile.revision}\0{texts.VERSION}\0{seed}"
        self._model = ModelInfo(
            name=name or profile.name,
            source=profile.name,
            revision=hashlib.sha256(identity.encode()).hexdigest(),
            engine="simulated",
            context_length=min(filter(None, (profile.context_length, max_context))),
            chat_template=_TEMPLATE,
            batch_invariant=True,
            dtype="",
            device="none",
            size_bytes=0,
        )
        log.info("simulation_started", profile=profile.name, slots=slots, speed=speed, seed=seed)

    @property
    def model(self) -> ModelInfo:
        """The simulated model; its revision covers the profile, the engine's seed and the text generator's version."""
        return self._model

    @property
    def fault(self) -> str:
        """Always empty: this engine cannot fail."""
        return ""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield completions as they finish; see `Engine.generate`."""
        arrival = time.perf_counter()
        self._samples.require_room(request)
        prompt_tokens = self._prompt_tokens(request)
        wanted = read(request)
        identity = self._model.revision, text_of(request), request.sampling
        passes = Draws("prompt", *identity).quantile(self._profile.pass_rates)

        async def write(sample: Sample, arrival: float) -> Completion:
            async with self._slots:
                metrics.QUEUE_SECONDS.observe(time.perf_counter() - arrival)
                draws = Draws("sample", *identity, sample.seed)
                completion, seconds = self._write(request, wanted, passes, sample, draws, prompt_tokens)
                if self._speed:
                    await self._sleep(seconds / self._speed)
                return completion

        async with contextlib.aclosing(self._samples.run(request, write, arrival)) as completions:
            async for completion in completions:
                yield completion

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Estimate the token counts from the recording's average characters per token."""
        return [self._tokens_of(text) for text in texts]

    def load(self) -> Load:
        """Return the current load."""
        return self._samples.load()

    async def close(self) -> None:
        """Cancel samples in flight with `Unavailable`."""
        await self._samples.close()

    def _tokens_of(self, text: str) -> int:
        return -int(-len(text) // self._profile.chars_per_prompt_token)

    def _prompt_tokens(self, request: GenerationRequest) -> int:
        if isinstance(request.prompt, str):
            tokens = self._tokens_of(request.prompt)
        else:
            tokens = sum(self._tokens_of(message.content) for message in request.prompt)
        if tokens >= self._model.context_length:
            raise InvalidArgument(
                "prompt",
                f"has {tokens} tokens, but the model's context has {self._model.context_length} including at "
                "least one new token: shorten it",
            )
        return tokens

    def _write(
        self,
        request: GenerationRequest,
        wanted: Wanted,
        passes: float,
        sample: Sample,
        draws: Draws,
        prompt_tokens: int,
    ) -> tuple[Completion, float]:
        """Return a completion and the seconds that it takes at recorded speed."""
        kind = self._profile.kinds[wanted.kind]
        room = self._model.context_length - prompt_tokens
        most_tokens = min(request.sampling.max_tokens or room, room)
        most_chars = max(1, int(most_tokens * kind.chars_per_token))
        chars = int(draws.quantile(kind.tokens) * kind.chars_per_token)
        text, cut = self._text(wanted, passes, draws, chars)
        if cut:
            text = texts.endless(text, draws, most_chars + 1)
        stopped = first_stop(text, request.sampling.stop)
        if stopped and stopped[0] <= most_chars:
            text, reason, stop_string = text[: stopped[0]], FinishReason.STOP_STRING, stopped[1]
        elif len(text) > most_chars:
            text, reason, stop_string = text[:most_chars], FinishReason.LENGTH, ""
        else:
            reason, stop_string = FinishReason.END_TOKEN, ""
        tokens = most_tokens if reason is FinishReason.LENGTH else 1 + int(len(text) / kind.chars_per_token)
        seconds = tokens * draws.quantile(kind.seconds_per_token)
        completion = Completion(
            attempt=sample.attempt,
            seed=sample.seed,
            text=text,
            finish_reason=reason,
            stop_string=stop_string,
            prompt_tokens=prompt_tokens,
            cached_prompt_tokens=min(prompt_tokens, int(request.prefix_chars // self._profile.chars_per_prompt_token)),
            generated_tokens=min(tokens, most_tokens),
            seconds=round(seconds / self._speed, 3) if self._speed else 0.0,
        )
        return completion, seconds

    def _text(self, wanted: Wanted, passes: float, draws: Draws, chars: int) -> tuple[str, bool]:
        """Return the whole text including its closing tag, and whether the text is cut off before its end."""
        if wanted.kind == ANSWER:
            outcome = PASSED if draws.share() < passes else draws.weighted(self._profile.failures)
            if wanted.with_task:
                return texts.pair(wanted, draws, chars, self._profile.repeats, outcome), outcome == CUT_OFF
            return texts.answer(wanted, draws, chars, outcome), outcome == CUT_OFF
        is_cut = draws.share() < self._profile.kinds[wanted.kind].cut_off
        text = texts.terms(draws, chars) if wanted.kind == LIST else texts.task(draws, chars, self._profile.repeats)
        return f"{text}\n</{wanted.closed}>\n", is_cut
