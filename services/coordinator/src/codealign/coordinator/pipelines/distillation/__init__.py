"""Distillation: a teacher answers given instructions once, at temperature 0 (SelfCodeAlign's Table 11).

`distillation` keeps answers whose own tests pass; `distillation-unexecuted` keeps all.
"""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.given import GivenInstructions, GivenRowSelection
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import PROBE, templates_sha256
from codealign.coordinator.pipelines.selfcodealign import FEW_SHOTS, responses
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution
from codealign.coordinator.pipelines.stage import Execution


class Answers(responses.Responses):
    """One answer to each task; parsed as in selfcodealign.

    Its name differs from `responses`, so that presets with several draws for these do not apply: at temperature 0, all
    draws would be alike.
    """

    name = "answers"
    parent = "seeds"
    title = "Instruction → teacher's answer"
    description = "The teacher answers each task once, with tests."
    defaults = pb.StageSettings(max_tokens=1024, few_shots=1, attempts=1, temperature=0.0)


def _distillation(name: str, description: str, *execution: Execution) -> Pipeline:
    answers = Answers()
    texts = [responses.prefix([PROBE]), responses.suffix(1, PROBE.instruction)]
    return Pipeline(
        name=name,
        description=description,
        stages=(
            GivenInstructions(),
            answers,
            *execution,
            GivenRowSelection(parent=execution[0].name if execution else answers.name),
        ),
        few_shots=FEW_SHOTS,
        templates_sha256=templates_sha256(texts, [responses.SECTION]),
    )


PIPELINES = [
    _distillation(
        "distillation",
        "A teacher answers given tasks once; answers are kept where their own tests pass.",
        ResponseExecution(parent="answers"),
    ),
    _distillation("distillation-unexecuted", "A teacher answers given tasks once; nothing is executed."),
]
