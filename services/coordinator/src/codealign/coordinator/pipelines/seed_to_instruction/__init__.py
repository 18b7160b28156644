"""Seed → instruction: the model writes the task directly from the seed (SelfCodeAlign's ablation, its Table 10).

The later stages and the few-shot sets are those of selfcodealign.
"""

from __future__ import annotations

from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import PROBE, templates_sha256
from codealign.coordinator.pipelines.seed_to_instruction import instructions
from codealign.coordinator.pipelines.selfcodealign import FEW_SHOTS, responses
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution
from codealign.coordinator.pipelines.selfcodealign.seeds import SeedFunctions
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection


def _templates_sha256() -> str:
    texts = [
        instructions.prefix([PROBE]),
        instructions.suffix(1, PROBE.seed, PROBE.category, PROBE.language, PROBE.difficulty),
        responses.prefix([PROBE]),
        responses.suffix(1, PROBE.instruction),
    ]
    return templates_sha256(texts, [instructions.SECTION, responses.SECTION])


PIPELINE = Pipeline(
    name="seed-to-instruction",
    description="Real functions become tasks directly, without concepts; answers are kept where their own tests pass.",
    stages=(
        SeedFunctions(),
        instructions.InstructionsFromSeeds(),
        responses.Responses(),
        ResponseExecution(),
        RowSelection(),
    ),
    few_shots=FEW_SHOTS,
    templates_sha256=_templates_sha256(),
)
