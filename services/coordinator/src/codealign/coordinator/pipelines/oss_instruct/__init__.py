"""OSS-Instruct (Magicoder, arXiv 2312.02120): a random snippet inspires a task, answered in the same completion.

Nothing is executed, as published. The few-shot sets are those of selfcodealign.
"""

from __future__ import annotations

from codealign.coordinator.pipelines.oss_instruct import pairs
from codealign.coordinator.pipelines.oss_instruct.selection import PairSelection
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.prompt import PROBE, templates_sha256
from codealign.coordinator.pipelines.selfcodealign import FEW_SHOTS
from codealign.coordinator.pipelines.snippets import AnyCode

PIPELINE = Pipeline(
    name="oss-instruct",
    description="Random lines of code inspire tasks, each answered in the same completion; nothing is executed.",
    stages=(AnyCode(), pairs.Pairs(), PairSelection()),
    few_shots=FEW_SHOTS,
    templates_sha256=templates_sha256([pairs.prefix([PROBE]), pairs.suffix(1, PROBE.seed)], [pairs.SECTION]),
)
