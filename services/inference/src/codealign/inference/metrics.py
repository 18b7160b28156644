"""Metrics of the inference service, besides those of every server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from codealign.inference.engines.base import Completion, FinishReason, Load

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

TOKENS = Counter(
    "codealign_inference_tokens_total",
    "Tokens: computed_prompt, cached_prompt (not computed), prompt (unknown which of both) and generated",
    ["kind"],
)
COMPLETIONS = Counter("codealign_inference_completions_total", "Finished completions", ["finish_reason"])
RUNNING = Gauge("codealign_inference_running_samples", "Samples being decoded")
WAITING = Gauge("codealign_inference_waiting_samples", "Accepted samples waiting for a slot")
SLOTS = Gauge("codealign_inference_slots", "Samples that all loaded models can decode at once")
BATCH_ROWS = Histogram(
    "codealign_inference_batch_rows",
    "Rows per decoding step (engine transformers)",
    buckets=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256),
)
QUEUE_SECONDS = Histogram(
    "codealign_inference_queue_seconds",
    "Time from a request's arrival until its prompt is computed; not known of engine openai",
    buckets=_SECONDS,
)
FIRST_TOKEN_SECONDS = Histogram(
    "codealign_inference_time_to_first_token_seconds",
    "Time from a request's arrival to a completion's first token (engines transformers and vllm)",
    buckets=_SECONDS,
)
COMPLETION_SECONDS = Histogram(
    "codealign_inference_completion_seconds",
    "Time from a request's arrival to a completion's last token",
    buckets=_SECONDS,
)
ENGINE_METRICS_UP = Gauge(
    "codealign_inference_engine_metrics_up",
    "1 if the endpoint's own metrics (vllm:*) could be read at this scrape, else 0 (engine openai)",
    ["endpoint"],
    registry=None,  # collected with the metrics that it is about
)

GATEWAY_WAITING = Gauge(
    "codealign_inference_gateway_waiting_samples", "Samples in the gateway's queue that wait for a worker", ["model"]
)
GATEWAY_OLDEST = Gauge(
    "codealign_inference_gateway_oldest_waiting_timestamp_seconds",
    "When the sample that waits longest at the gateway was queued, in seconds since 1970; 0 if none waits",
    ["model"],
)
GATEWAY_QUEUE_LIMIT = Gauge(
    "codealign_inference_gateway_queue_limit", "Samples that may wait at the gateway; more are refused"
)
GATEWAY_IN_FLIGHT = Gauge(
    "codealign_inference_gateway_in_flight_samples",
    "Samples that a worker has been sent and has not answered",
    ["worker"],
)
WORKER_STATES = ("ready", "loading", "refused", "unavailable", "aside")
GATEWAY_WORKERS = Gauge(
    "codealign_inference_gateway_workers",
    "Workers that serve a model (ready), that load one, that cannot have one (refused), that do not respond, and that "
    "are set aside after a fault",
    ["state"],
)
GATEWAY_RESENT = Counter(
    "codealign_inference_gateway_resent_samples_total",
    "Samples sent again: their worker was lost, failed (fault), or did not take them (returned)",
    ["reason"],
)
GATEWAY_SPILLED = Counter(
    "codealign_inference_gateway_spilled_samples_total",
    "Samples sent to another worker than their prefix group's own, which had no room",
)
GATEWAY_REFUSED = Counter(
    "codealign_inference_gateway_refused_requests_total", "Requests refused or dropped because the queue was full"
)

KINDS = ("computed_prompt", "cached_prompt", "prompt", "generated")
for _kind in KINDS:
    TOKENS.labels(_kind)
for _reason in FinishReason:
    COMPLETIONS.labels(_reason.value)
for _why in ("lost", "fault", "returned"):
    GATEWAY_RESENT.labels(_why)
for _state in WORKER_STATES:
    GATEWAY_WORKERS.labels(_state)


def watch(load: Callable[[], Load]) -> None:
    """Read the gauges from `load` at every scrape."""
    RUNNING.set_function(lambda: load().running)
    WAITING.set_function(lambda: load().waiting)
    SLOTS.set_function(lambda: load().slots)


def count_prompt(tokens: int, cached: int | None) -> None:
    """Count a prompt's tokens, `cached` of which were not computed (None: unknown)."""
    if cached is None:
        TOKENS.labels("prompt").inc(tokens)
        return
    TOKENS.labels("computed_prompt").inc(max(0, tokens - cached))
    TOKENS.labels("cached_prompt").inc(cached)


def count(completion: Completion) -> None:
    """Count a finished completion and its tokens."""
    count_prompt(completion.prompt_tokens, completion.cached_prompt_tokens)
    TOKENS.labels("generated").inc(completion.generated_tokens)
    COMPLETIONS.labels(completion.finish_reason.value).inc()
