"""Imported responses: the records of a collection, which are the candidates themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.stage import Seeds, Settings
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.seeds import Drop

NO_CODE = "imported.no-code"


class ImportedResponses(Seeds):
    """Every response of the collection, with what it derives from."""

    name = "responses"
    title = "Imported responses"
    description = "The responses of a collection, imported from other projects."
    plural = "responses"
    advice = "import some with `codealign import PATH --format NAME`"
    makes = pb.KIND_RESPONSE
    VERSION = 1
    reasons: ClassVar[Mapping[str, str]] = {}
    threshold = None  # duplicates are found when rows are selected
    ancestors = {
        pb.KIND_SEED: "seeds",
        pb.KIND_CONCEPT_SET: "concepts",
        pb.KIND_INSTRUCTION: "instructions",
    }

    def drop(self, record: pb.Record, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:  # noqa: ARG002
        """Drop nothing: the rules for rows decide."""
        return None

    def text(self, record: pb.Record) -> str:
        """Return the answer."""
        return record.response.answer


class ImportedPrograms(ImportedResponses):
    """Every response of the collection that has a program to execute."""

    reasons = {NO_CODE: "has no Python code to execute"}

    def drop(self, record: pb.Record, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:  # noqa: ARG002
        """Drop a response without Python code."""
        return None if record.response.code.strip() else Drop(NO_CODE, "the answer contains no Python block")
