"""Seeds: functions from real code that meet the paper's rules."""

from __future__ import annotations

from collections.abc import Mapping

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.stage import Seeds, Settings
from codealign.coordinator.rules import duplicates, seeds
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.seeds import Drop, static_drop


class SeedFunctions(Seeds):
    """Functions from real code that pass the static rules."""

    name = "seeds"
    title = "Seeds"
    description = "Functions of real code are filtered: they are self-contained and differ from one another."
    makes = pb.KIND_SEED
    VERSION = 1
    reasons = {**seeds.RULES, **duplicates.SEED_RULES}
    threshold = duplicates.SEED_THRESHOLD

    def drop(self, record: pb.Record, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:  # noqa: ARG002
        """Return the first static rule that drops a function."""
        return static_drop(record.seed, benchmarks)

    def rule_settings(self, settings: Settings) -> Mapping[str, object]:  # noqa: ARG002
        """Return the limit of a function's lines."""
        return {"max_lines": seeds.MAX_LINES}

    def text(self, record: pb.Record) -> str:
        """Return the function's source without its imports."""
        return record.seed.code


def source_of(seed: pb.Seed) -> str:
    """Return a function as shown in prompts: the imports it needs, then its source."""
    return "\n".join([*seed.imports, seed.code])
