"""SelfCodeAlign (arXiv 2410.24198): concepts of real functions become tasks, whose answers are executed."""

from __future__ import annotations

from codealign.coordinator.pipelines.few_shots import FewShotSets
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import PROBE, templates_sha256
from codealign.coordinator.pipelines.selfcodealign import concepts, instructions, responses
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution
from codealign.coordinator.pipelines.selfcodealign.seeds import SeedFunctions
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection

FEW_SHOTS = FewShotSets(__name__, default="selfcodealign")


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
    name="selfcodealign",
    description="Concepts of real functions become tasks; answers are kept where their own tests pass.",
    stages=(
        SeedFunctions(),
        concepts.Concepts(),
        instructions.Instructions(),
        responses.Responses(),
        ResponseExecution(),
        RowSelection(),
    ),
    few_shots=FEW_SHOTS,
    templates_sha256=_templates_sha256(),
)
