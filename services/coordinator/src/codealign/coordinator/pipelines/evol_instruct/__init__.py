"""Evol-Instruct for code (WizardCoder, arXiv 2306.08568): given tasks become harder in rounds and are then answered.

`evol-instruct` has one round, `evol-instruct-2` to `evol-instruct-4` have as many as their name says. The first rounds
of a longer one are those of a shorter one: with the same settings, nothing is generated twice.
"""

from __future__ import annotations

from dataclasses import replace

from codealign.coordinator.pipelines.evol_instruct import evolutions
from codealign.coordinator.pipelines.evol_instruct.evolutions import Evolution
from codealign.coordinator.pipelines.few_shots import FewShotSets
from codealign.coordinator.pipelines.given import GivenInstructions, GivenRowSelection
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import PROBE, templates_sha256
from codealign.coordinator.pipelines.selfcodealign import responses
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution

MOST_ROUNDS = 4
FEW_SHOTS = FewShotSets(__name__, default="evol-instruct")


def _templates_sha256() -> str:
    texts = [
        evolutions.prefix([replace(PROBE, method=next(iter(evolutions.METHODS)))]),
        *(evolutions.suffix(1, PROBE.instruction, method) for method in evolutions.METHODS),
        responses.prefix([PROBE]),
        responses.suffix(1, PROBE.instruction),
    ]
    return templates_sha256(texts, [evolutions.SECTION, responses.SECTION])


def evol_instruct(rounds: int) -> Pipeline:
    """Return the pipeline with this number of rounds."""
    stages = [Evolution(number) for number in range(1, rounds + 1)]
    times = "once" if rounds == 1 else f"in {rounds} rounds"
    return Pipeline(
        name="evol-instruct" if rounds == 1 else f"evol-instruct-{rounds}",
        description=f"Given tasks are made harder {times}; answers are kept where their own tests pass.",
        stages=(
            GivenInstructions(),
            *stages,
            responses.Responses(parent=stages[-1].name),
            ResponseExecution(),
            GivenRowSelection(),
        ),
        few_shots=FEW_SHOTS,
        templates_sha256=_templates_sha256(),
    )


PIPELINES = [evol_instruct(rounds) for rounds in range(1, MOST_ROUNDS + 1)]
