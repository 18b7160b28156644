"""The thread that owns the model: continuous batching over a fixed number of slots.

Each turn does at most one piece of one prompt and then one step of every live row, so a cancelled call frees its
rows, and a new prompt begins, within one such turn. Prompts start in the order of their arrival.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import torch

from codealign.common.errors import Internal, Unavailable
from codealign.common.logs import get_logger
from codealign.inference import metrics
from codealign.inference.engines.base import Load
from codealign.inference.engines.queueing import WaitingBound
from codealign.inference.engines.transformers.continuation import detokenizer
from codealign.inference.engines.transformers.decoder import Decoder
from codealign.inference.engines.transformers.job import Job, Row
from codealign.inference.engines.transformers.kv_cache import Prefix, RowCache
from codealign.inference.engines.transformers.options import EngineOptions
from codealign.inference.engines.transformers.prefix_cache import SHORTEST, PrefixCache
from codealign.inference.engines.transformers.sampling import choose

log = get_logger(__name__)

_SHARING_SAMPLES = 4  # of one prompt


class Worker:
    """Runs jobs until it is stopped. Every method but `run`'s own may be called from any thread."""

    def __init__(
        self, decoder: Decoder, tokenizer: Any, end_tokens: frozenset[int], bytes_per_token: int, options: EngineOptions
    ) -> None:
        """Prepare; `start` starts the thread."""
        self._decoder = decoder
        self._text_of = detokenizer(tokenizer)
        self._end_tokens = end_tokens
        self._bytes_per_token = bytes_per_token
        self._options = options
        self._changed = threading.Condition()
        # Guarded by the condition's lock: the queue, the rows' list and the counts. The caches are the thread's own.
        self._queue: deque[Job] = deque()
        self._rows: list[Row] = []
        self._stopping = False
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0
        self._batch: RowCache = decoder.new_cache()
        self._prefixes = PrefixCache(options.prefix_cache_bytes)
        self._bound = WaitingBound(options.max_waiting)
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop at the next step and wait for it; what is in flight ends with `Unavailable`.

        Weights and caches are released here, because a call that has not ended may still reference this object.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        self._decoder.release()
        self._batch = self._decoder.new_cache()
        self._prefixes = PrefixCache(0)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            ResourceExhausted: the queue is full.
            Unavailable: the worker is stopping.
        """
        with self._changed:
            if self._stopping:
                raise Unavailable("the engine is stopping: try another replica")
            self._bound.require_room(sum(queued.waiting for queued in self._queue), job.waiting)
            self._queue.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue now and its rows out of the batch before the next step."""
        with self._changed:
            job.cancelled = True
            if job in self._queue:
                self._queue.remove(job)
            self._changed.notify()

    @property
    def samples(self) -> int:
        """Samples being decoded or waiting."""
        with self._changed:
            return len(self._rows) + sum(job.waiting for job in self._queue)

    def load(self) -> Load:
        """Return the current counts."""
        with self._changed:
            return Load(
                running=sum(not row.job.cancelled for row in self._rows),
                waiting=sum(job.waiting for job in self._queue),
                slots=self._options.slots,
                prompt_tokens=self._prompt_tokens,
                cached_prompt_tokens=self._cached_tokens,
                generated_tokens=self._generated_tokens,
            )

    def _run(self) -> None:
        torch.set_num_threads(self._options.threads)
        with torch.inference_mode():
            while True:
                with self._changed:
                    while not (self._queue or self._rows or self._stopping):
                        self._changed.wait()
                    if self._stopping:
                        self._fail(Unavailable("the engine was stopped: ask again"))
                        return
                try:
                    self._turn()
                except Exception as error:
                    # Whatever it was (memory, a model's own fault), the caches are in an unknown state: begin afresh.
                    log.exception("decode_failed", rows=len(self._rows))
                    self._batch = self._decoder.new_cache()
                    self._prefixes = PrefixCache(self._options.prefix_cache_bytes)
                    with self._changed:
                        self._fail(Internal(f"the model failed: {type(error).__name__}: {error}"))

    def _fail(self, error: Exception) -> None:
        """End every job with this error; called with the lock held."""
        jobs = {id(job): job for job in [*self._queue, *(row.job for row in self._rows)]}
        self._queue.clear()
        self._rows.clear()
        for job in jobs.values():
            job.deliver(error)

    def _turn(self) -> None:
        self._drop_cancelled()
        with self._changed:
            job = self._queue[0] if self._queue else None
        if job is not None and (room := self._room_for(job)):
            if job.logits is None:
                self._compute_prompt(job)
            if job.logits is not None:
                self._start_rows(job, room)
        if self._rows:
            self._step()
        if not self._rows and self._batch.size_bytes > self._options.idle_cache_bytes:
            self._batch = self._decoder.new_cache()

    def _drop_cancelled(self) -> None:
        for number in reversed([at for at, row in enumerate(self._rows) if row.job.cancelled]):
            self._remove(number)

    def _room_for(self, job: Job) -> int:
        """How many rows of this job can start now: slots, and memory for all rows at the longest one's length."""
        free = min(self._options.slots - len(self._rows), job.waiting)
        if free <= 0 or not self._rows:
            affordable = self._options.kv_cache_bytes // (job.columns * self._bytes_per_token)
            return max(0, min(free, max(1, affordable)))
        columns = max(job.columns, *(row.job.columns for row in self._rows))
        affordable = self._options.kv_cache_bytes // (columns * self._bytes_per_token)
        return max(0, min(free, affordable - len(self._rows)))

    def _compute_prompt(self, job: Job) -> None:
        """Compute the prompt's next piece; after the last one the job has logits."""
        if job.cache is None:
            metrics.QUEUE_SECONDS.observe(time.perf_counter() - job.arrival)
            shared, source = self._prefixes.longest(job.ids)
            job.cache = self._decoder.new_cache()
            job.cache.reserve(1, len(job.ids), exact=True)
            if source is not None:
                job.cache.append_rows(source, 1, shared)
                job.prefix = Prefix(source, shared)
            else:
                job.cache.begin_empty_row()
            job.cached_tokens = shared
        done = job.cache.lengths[0]
        logits = self._decoder.prefill(job.cache, job.ids[done : done + self._options.prefill_chunk])
        if job.cache.lengths[0] == len(job.ids):
            job.logits = logits
            self._keep_prefix(job)
            job.prefix = self._shared_prefix(job)

    def _keep_prefix(self, job: Job) -> None:
        """Keep the prompt's prefix for other jobs."""
        assert job.cache is not None
        length = job.prefix_tokens or len(job.ids)
        prefix = job.ids[:length]
        if self._prefixes.wants(prefix):
            kept = job.cache.prefix(length)
            self._prefixes.add(prefix, kept)
            job.prefix = Prefix(kept, length)

    def _shared_prefix(self, job: Job) -> Prefix | None:
        """Return what this job's rows share: the whole prompt if they are many, or the announced prefix."""
        if not self._decoder.shares or len(job.ids) < SHORTEST:
            return None
        if len(job.samples) >= _SHARING_SAMPLES:
            assert job.cache is not None
            return Prefix(job.cache, len(job.ids))
        return job.prefix if job.prefix_tokens else None

    def _start_rows(self, job: Job, room: int) -> None:
        """Turn the job's next samples into rows, each with its first token."""
        assert job.cache is not None
        first = job.started
        samples = job.samples[first : first + room]
        rows = [
            # The prompt is computed for the first sample; the others take it from there.
            Row(job, sample, self._text_of, job.cached_tokens if first + at == 0 else len(job.ids))
            for at, sample in enumerate(samples)
        ]
        self._batch.append_rows(job.cache, len(rows), len(job.ids), job.prefix)
        offset = len(self._rows)
        with self._changed:
            job.started += len(rows)
            self._rows += rows
            if job.started == len(job.samples):
                if job in self._queue:
                    self._queue.remove(job)
                job.cache = None
            self._prompt_tokens += len(rows) * len(job.ids)
            self._cached_tokens += sum(row.cached_tokens for row in rows)
        metrics.count_prompt(len(rows) * len(job.ids), sum(row.cached_tokens for row in rows))
        self._advance(offset, job.logits.expand(len(rows), -1))
        waited = time.perf_counter() - job.arrival
        for _ in rows:
            metrics.FIRST_TOKEN_SECONDS.observe(waited)

    def _step(self) -> None:
        """One token for every row."""
        metrics.BATCH_ROWS.observe(len(self._rows))
        self._advance(0, self._decoder.decode(self._batch, [row.last_token for row in self._rows]))

    def _advance(self, offset: int, logits: Any) -> None:
        """Choose the next token of the rows from `offset` on, and deliver those that end with it."""
        rows = self._rows[offset:]
        tokens = choose(
            logits,
            [row.job.sampling for row in rows],
            [row.sample.seed for row in rows],
            [row.generated for row in rows],
        )
        ended = [offset + at for at, row in enumerate(rows) if row.take(tokens[at], self._end_tokens)]
        with self._changed:
            self._generated_tokens += len(rows)
        metrics.TOKENS.labels("generated").inc(len(rows))
        for number in reversed(ended):
            row = self._rows[number]
            self._remove(number)
            self._deliver(row)

    def _remove(self, number: int) -> None:
        """Free a row's slot; the last row takes its number, here and in the cache."""
        self._batch.remove_row(number)
        with self._changed:
            last = self._rows.pop()
            if number < len(self._rows):
                self._rows[number] = last

    def _deliver(self, row: Row) -> None:
        self._bound.finished_one()
        completion = row.completion()
        metrics.COMPLETIONS.labels(completion.finish_reason.value).inc()
        metrics.COMPLETION_SECONDS.observe(completion.seconds)
        if not row.job.cancelled:
            row.job.deliver(completion)
