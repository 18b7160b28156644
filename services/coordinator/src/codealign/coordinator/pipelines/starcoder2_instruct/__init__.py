"""StarCoder2-Instruct (bigcode-project/starcoder2-self-align): the earlier form of selfcodealign.

The prompts and rules are selfcodealign's. Two things are as in that project's first form: 16 few-shot examples, and a
random choice among the passes of 10 answers.
"""

from __future__ import annotations

from dataclasses import replace

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines import selfcodealign
from codealign.coordinator.pipelines.few_shots import FewShotSets
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection

_EXAMPLES = (
    "01-receipt-layout",
    "02-free-slots",
    "03-lending-shelf",
    "04-number-packing",
    "05-shared-costs",
    "06-settings-diff",
    "07-triage-queue",
    "08-weekday-mask",
    "09-form-rules",
    "10-point-location",
    "11-recent-cache",
    "12-click-sessions",
    "13-note-search",
    "14-border-turn",
    "16-voucher-journey",
    "20-jury-score",
)


class RandomSelection(RowSelection):
    """As in selfcodealign, but one of all passes is chosen at random."""

    description = "One of the passing answers to each task is chosen at random; no two rows are duplicates."
    defaults = pb.SelectionSettings(strategy="random-pass")


PIPELINE = replace(
    selfcodealign.PIPELINE,
    name="starcoder2-instruct",
    description="Concepts of real functions become tasks; one of 10 answers is kept, at random among those that pass.",
    stages=(*selfcodealign.PIPELINE.stages[:-1], RandomSelection()),
    few_shots=FewShotSets(
        selfcodealign.__name__,
        default="starcoder2-instruct",
        parts={"starcoder2-instruct": ("selfcodealign", _EXAMPLES)},
    ),
)
