"""The service's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from codealign.inference.engines.base import Completion, Load

TOKENS = Counter("codealign_inference_tokens_total", "Tokens by kind: prompt, cached_prompt or generated.", ["kind"])
COMPLETIONS = Counter("codealign_inference_completions_total", "Finished completions.", ["finish_reason"])
RUNNING = Gauge("codealign_inference_running_samples", "Samples being decoded.")
WAITING = Gauge("codealign_inference_waiting_samples", "Samples accepted but not started.")
BATCH_ROWS = Histogram(
    "codealign_inference_batch_rows", "Rows per decode step.", buckets=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
)
COMPLETION_SECONDS = Histogram(
    "codealign_inference_completion_seconds",
    "Seconds from a request's arrival to a completion's last token.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)


def watch(load: Callable[[], Load]) -> None:
    """Read the gauges from `load` at every scrape."""
    RUNNING.set_function(lambda: load().running)
    WAITING.set_function(lambda: load().waiting)


def count(completion: Completion) -> None:
    """Count a finished completion and its tokens."""
    TOKENS.labels("prompt").inc(completion.prompt_tokens)
    TOKENS.labels("cached_prompt").inc(completion.cached_prompt_tokens)
    TOKENS.labels("generated").inc(completion.generated_tokens)
    COMPLETIONS.labels(completion.finish_reason.value).inc()
