"""The model card: what the model is, how it was trained and how to prompt it. Contains no times and no hosts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from codealign.common.text import yaml_quoted
from codealign.trainer.sft.job import Job
from codealign.trainer.sft.progress import Point, thinned
from codealign.trainer.sft.template import INSTRUCTION_HEADER, RESPONSE_HEADER, SYSTEM_SENTENCE

_CURVE_POINTS = 12


@dataclass(frozen=True)
class Card:
    """Values of a card besides the job."""

    rows: int
    truncated_rows: int
    dropped_rows: int
    trained_tokens: int
    own_template: bool
    """Whether the prompt is CodeAlign's or else the base model's."""
    losses: Sequence[Point]


def model_card(job: Job, card: Card) -> str:
    """Return README.md of the trained model, with front matter for the hub."""
    lines = [
        "---",
        f"base_model: {yaml_quoted(job.model_name)}",
        "pipeline_tag: text-generation",
        "library_name: transformers",
        "tags:",
        "- code",
        "- self-alignment",
        "---",
        "",
        f"# {job.model_name}, fine-tuned on {job.dataset_name}",
        "",
        "Tuned with CodeAlign to follow programming instructions, by the SelfCodeAlign method (arXiv 2410.24198): the "
        "loss covers the answers and their end tokens alone.",
        "",
        "| | |",
        "|---|---|",
        f"| Base model | {job.model_name}, revision `{job.model_revision}` |",
        f"| Dataset | {job.dataset_name}: {card.rows:,} rows |",
        f"| Rows cut at {job.max_length:,} tokens | {card.truncated_rows:,} |",
        f"| Rows left out, the prompt alone being longer | {card.dropped_rows:,} |",
        f"| Tokens in the loss, over all steps | {card.trained_tokens:,} |",
        f"| Trained with | {job.setup} |",
        "",
        "## Use",
        "",
        _prompt(card),
        "",
        "## Settings",
        "",
        "```json",
        json.dumps(job.settings(), indent=1, ensure_ascii=False),
        "```",
        "",
        "## Loss",
        "",
        "| step | loss |",
        "|---|---|",
        *(f"| {point.step} | {point.loss:.4f} |" for point in thinned(card.losses, _CURVE_POINTS)),
    ]
    return "\n".join(lines) + "\n"


def _prompt(card: Card) -> str:
    if not card.own_template:
        return "Ask it with the chat template in its tokenizer, which is the base model's."
    return "\n".join(
        [
            "Ask it with the chat template in its tokenizer (`apply_chat_template(..., add_generation_prompt=True)`), "
            "which writes:",
            "",
            "```",
            SYSTEM_SENTENCE,
            "",
            INSTRUCTION_HEADER,
            "<your instruction>",
            "",
            RESPONSE_HEADER,
            "```",
        ]
    )
