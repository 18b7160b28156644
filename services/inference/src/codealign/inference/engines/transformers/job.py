"""A request on its way through the engine, and the rows that it becomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from codealign.inference.engines.base import Completion, FinishReason, Sample, Sampling
from codealign.inference.engines.transformers.continuation import Continuation, Detokenize
from codealign.inference.engines.transformers.kv_cache import Prefix, RowCache

Deliver = Callable[[Completion | Exception], None]


class Job:
    """A prompt and the samples wanted of it. Its prompt is computed once, whatever the number of samples."""

    def __init__(
        self,
        ids: Sequence[int],
        samples: Sequence[Sample],
        sampling: Sampling,
        *,
        limit: int,
        prefix_tokens: int,
        arrival: float,
        deliver: Deliver,
    ) -> None:
        """Describe the job.

        Args:
            ids: The prompt's tokens.
            samples: At least one.
            sampling: Shared by the samples.
            limit: New tokens at most, at least 1.
            prefix_tokens: How many leading tokens other prompts are known to share; 0 is unknown.
            arrival: `time.perf_counter()` of the request.
            deliver: Takes each completion, or the error that ends the job; called in the worker's thread.
        """
        self.ids = list(ids)
        self.samples = tuple(samples)
        self.sampling = sampling
        self.limit = limit
        self.prefix_tokens = prefix_tokens
        self.arrival = arrival
        self.deliver = deliver
        self.cancelled = False
        self.started = 0
        """Samples that have become rows."""
        self.cache: RowCache | None = None
        """The prompt's keys and values, while they are computed and until every sample has started."""
        self.prefix: Prefix | None = None
        """Until the prompt is computed what other jobs have computed of it; then what its rows share."""
        self.cached_tokens = 0
        """Of the prompt, what came from the prefix cache."""
        self.logits: Any = None
        """After the prompt's last token."""

    @property
    def waiting(self) -> int:
        """Samples not yet started."""
        return 0 if self.cancelled else len(self.samples) - self.started

    @property
    def columns(self) -> int:
        """Maximum length of one row, in tokens."""
        return len(self.ids) + self.limit


class Row:
    """One sample being decoded; its keys and values are the batch cache's row of the same number."""

    def __init__(self, job: Job, sample: Sample, text_of: Detokenize, cached_tokens: int) -> None:
        """Begin after the prompt."""
        self.job = job
        self.sample = sample
        self.cached_tokens = cached_tokens
        self.generated = 0
        self.last_token = 0
        self.finish_reason: FinishReason | None = None
        self._continuation = Continuation(text_of, job.ids, job.sampling.stop)

    def take(self, token: int, end_tokens: frozenset[int]) -> bool:
        """Add the token that was chosen; True if that ends the sample."""
        self.last_token = token
        self.generated += 1
        if token in end_tokens:
            self.finish_reason = FinishReason.STOP_STRING if self._continuation.finish() else FinishReason.END_TOKEN
        elif self._continuation.push(token):
            self.finish_reason = FinishReason.STOP_STRING
        elif self.generated >= self.job.limit:
            self.finish_reason = FinishReason.STOP_STRING if self._continuation.finish() else FinishReason.LENGTH
        return self.finish_reason is not None

    def completion(self) -> Completion:
        """Return the finished sample."""
        assert self.finish_reason is not None
        return Completion(
            attempt=self.sample.attempt,
            seed=self.sample.seed,
            text=self._continuation.text,
            finish_reason=self.finish_reason,
            stop_string=self._continuation.stop_string,
            prompt_tokens=len(self.job.ids),
            cached_prompt_tokens=self.cached_tokens,
            generated_tokens=self.generated,
            seconds=time.perf_counter() - self.job.arrival,
        )
