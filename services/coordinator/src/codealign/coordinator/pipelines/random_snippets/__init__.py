"""Random snippets: concepts come from arbitrary lines of code (SelfCodeAlign's ablation, its Table 10).

The later stages and the few-shot sets are those of selfcodealign.
"""

from __future__ import annotations

from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import PROBE, templates_sha256
from codealign.coordinator.pipelines.random_snippets import concepts
from codealign.coordinator.pipelines.selfcodealign import FEW_SHOTS, instructions, responses
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection
from codealign.coordinator.pipelines.snippets import AnyCode


def _templates_sha256() -> str:
    texts = [
        concepts.prefix([PROBE]),
        concepts.suffix(1, PROBE.seed),
        instructions.prefix([PROBE]),
        instructions.suffix(1, PROBE.category, PROBE.language, PROBE.difficulty, PROBE.concepts),
        responses.prefix([PROBE]),
        responses.suffix(1, PROBE.instruction),
    ]
    return templates_sha256(texts, [concepts.SECTION, instructions.SECTION, responses.SECTION])


PIPELINE = Pipeline(
    name="random-snippets",
    description="Concepts of random lines of code become tasks; answers are kept where their own tests pass.",
    stages=(
        AnyCode(),
        concepts.SnippetConcepts(),
        instructions.Instructions(),
        responses.Responses(),
        ResponseExecution(),
        RowSelection(),
    ),
    few_shots=FEW_SHOTS,
    templates_sha256=_templates_sha256(),
)
