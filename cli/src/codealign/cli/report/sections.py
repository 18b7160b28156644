"""Contents of the page's sections, as plain values for the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.report import charts
from codealign.cli.report.wording import (
    Words,
    by_count,
    loss,
    percent,
    pretty_json,
    share,
    short,
)
from codealign.cli.terminal import duration


@dataclass(frozen=True)
class Count:
    """A name, its meaning (empty: unknown), its number, and its share of all."""

    name: str
    words: str
    number: int
    share: str
    bar: Markup


@dataclass(frozen=True)
class FunnelStage:
    """A stage of the funnel."""

    title: str
    purpose: str
    items: int
    kept: int
    dropped: int
    reasons: tuple[Count, ...]
    bar: Markup
    flow: Markup


@dataclass(frozen=True)
class Cost:
    """Time and tokens of a stage; texts are empty if it took none."""

    title: str
    time: str
    time_bar: Markup
    prompt: str
    cached: str
    cached_share: str
    prompt_bar: Markup
    generated: str
    rate: str
    generated_bar: Markup


@dataclass(frozen=True)
class TrainingView:
    """A training on the run's version."""

    title: str
    sentence: str
    facts: tuple[tuple[str, str], ...]
    chart: Markup
    settings: str


def funnel(stages: Sequence[api.StageReport], words: Words) -> list[FunnelStage]:
    """Return every stage, with all bars on one scale."""
    widest = max((stage.items for stage in stages), default=0) or 1
    found = []
    for index, stage in enumerate(stages):
        following = stages[index + 1].items if index + 1 < len(stages) else stage.kept
        dropped = max(0, stage.items - stage.kept)
        title = words.title(stage.stage)
        found.append(
            FunnelStage(
                title=title,
                purpose=words.purpose(stage.stage),
                items=stage.items,
                kept=stage.kept,
                dropped=dropped,
                reasons=tuple(counts(stage.reasons, stage.items, words, stage.stage)),
                bar=charts.stage_bar(
                    stage.kept / widest,
                    dropped / widest,
                    title=f"{title}: {stage.items:,} items",
                    description=f"{stage.kept:,} kept, {dropped:,} dropped.",
                    name=f"funnel-{index}",
                ),
                flow=charts.flow(stage.kept / widest, following / widest) if index + 1 < len(stages) else Markup(""),
            )
        )
    return found


def counts(numbers: Mapping[str, int], whole: int, words: Words, stage: str = "") -> list[Count]:
    """Return names by number, each with its meaning, its share and a bar."""
    ordered = by_count(numbers)
    return [
        Count(
            name,
            words.meaning(name, stage),
            number,
            share(number, whole),
            charts.bar(("passed" if name == "PASSED" else "plain", number / whole if whole else 0)),
        )
        for name, number in ordered
    ]


def costs(stages: Sequence[api.StageReport], words: Words) -> list[Cost]:
    """Return each stage that took time or tokens."""
    longest = max((stage.wall_seconds for stage in stages), default=0.0) or 1.0
    most_prompt = max((stage.prompt_tokens for stage in stages), default=0) or 1
    most_generated = max((stage.generated_tokens for stage in stages), default=0) or 1
    found = []
    for stage in stages:
        tokens = bool(stage.prompt_tokens or stage.generated_tokens)
        if not tokens and not stage.wall_seconds:
            continue
        prompt_tokens, cached_tokens, unknown = cached_of([stage])
        cached = cached_tokens / prompt_tokens if prompt_tokens else 0.0
        prompt = stage.prompt_tokens / most_prompt
        rated = stage.wall_seconds > 0 and stage.generated_tokens > 0
        found.append(
            Cost(
                title=words.title(stage.stage),
                time=duration(stage.wall_seconds) if stage.wall_seconds else "",
                time_bar=charts.bar(("plain", stage.wall_seconds / longest)),
                prompt=f"{stage.prompt_tokens:,}" if tokens else "",
                cached=cached_words(prompt_tokens, cached_tokens, unknown) if tokens else "",
                cached_share=cached_share(prompt_tokens, cached_tokens, unknown),
                prompt_bar=charts.bar(("plain", prompt * (1 - cached)), ("cached", prompt * cached)),
                generated=f"{stage.generated_tokens:,}" if tokens else "",
                rate=f"{stage.generated_tokens / stage.wall_seconds:,.1f}" if rated else "",
                generated_bar=charts.bar(("plain", stage.generated_tokens / most_generated)),
            )
        )
    return found


def totals(stages: Sequence[api.StageReport]) -> Cost | None:
    """Return the tokens of all stages, or None. Times are not added up, because stages run in parallel."""
    prompt, cached, unknown = cached_of(stages)
    generated = sum(stage.generated_tokens for stage in stages)
    if not prompt and not generated:
        return None
    none = Markup("")
    words, share = cached_words(prompt, cached, unknown), cached_share(prompt, cached, unknown)
    return Cost("All", "", none, f"{prompt:,}", words, share, none, f"{generated:,}", "", none)


def cached_of(stages: Sequence[api.StageReport]) -> tuple[int, int, int]:
    """Return the stages' prompt tokens, those that were cached, and those of which that is unknown."""
    return (
        sum(stage.prompt_tokens for stage in stages),
        sum(stage.cached_prompt_tokens for stage in stages),
        sum(stage.unknown_prompt_tokens for stage in stages),
    )


def cached_words(prompt: int, cached: int, unknown: int) -> str:
    """Return how many prompt tokens were cached, as far as engines say."""
    if not unknown:
        return f"{cached:,}"
    return f"{cached:,} (of {unknown:,} unknown)" if unknown < prompt else "unknown"


def cached_share(prompt: int, cached: int, unknown: int) -> str:
    """Return the share of cached tokens among the prompt tokens of which it is known. Empty: there are none."""
    return percent(cached / (prompt - unknown)) if prompt > unknown else ""


def training(index: int, record: pb.Record) -> TrainingView:
    """Return a checkpoint's data, settings and loss."""
    made = record.checkpoint
    losses = [point.loss for point in made.losses if math.isfinite(point.loss)]
    facts = {
        "rows": f"{made.rows:,}" if made.rows else "",
        "truncated rows": f"{made.truncated_rows:,}" if made.rows else "",
        "optimizer steps": f"{made.steps:,}",
        "tokens in the loss": f"{made.trained_tokens:,}" if made.trained_tokens else "",
        "speed": speed(record),
        "loss, first to last": f"{loss(losses[0])} → {loss(losses[-1])}" if losses else "",
        "final loss": loss(made.final_loss) if made.final_loss or not losses else "",
        "setup": made.setup,
        "trained on": made.dataset_version,
        "base model": f"{made.base_model} at {short(made.base_revision)}" if made.base_revision else made.base_model,
        "checkpoint": made.artifact_url,
        "revision": made.revision,
    }
    return TrainingView(
        title=f"Checkpoint {short(made.revision) or short(record.id)}",
        sentence=training_sentence(made),
        facts=tuple((name, value) for name, value in facts.items() if value),
        chart=charts.loss_chart(made.losses, name=f"loss-{index}"),
        settings=pretty_json(made.settings_json) if made.settings_json else "",
    )


def training_sentence(made: pb.Checkpoint) -> str:
    """Summarize a training in a sentence."""
    text = f"{made.steps:,} optimizer {'step' if made.steps == 1 else 'steps'}"
    if made.rows:
        text += f" on {made.rows:,} {'row' if made.rows == 1 else 'rows'}"
    if made.truncated_rows:
        text += f", {made.truncated_rows:,} of them truncated"
    return text


def speed(record: pb.Record) -> str:
    """Return a training's tokens per second, or "" if unknown."""
    tokens, seconds = record.checkpoint.trained_tokens, record.provenance.seconds
    return f"{tokens / seconds:,.1f} tokens per second" if tokens and seconds > 0 else ""


def verdict_counts(report: api.GetReportResponse) -> list[Count]:
    """Return verdicts by number."""
    return counts(report.verdicts, sum(report.verdicts.values()), Words(report.pipeline))


def sample_verdicts(evaluation: api.Evaluation, words: Words) -> str:
    """Return an evaluation's samples by verdict, in one line."""
    named = [f"{words.meaning_or_name(name)} {number:,}" for name, number in by_count(evaluation.verdicts)]
    return ", ".join(named)
