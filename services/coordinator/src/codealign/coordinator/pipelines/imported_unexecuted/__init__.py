"""Imported responses without execution, for data without tests or in other languages; rows say so."""

from __future__ import annotations

from codealign.coordinator.pipelines.imported.responses import ImportedResponses
from codealign.coordinator.pipelines.imported.selection import ImportedSelection
from codealign.coordinator.pipelines.pipeline import Pipeline


class UnexecutedSelection(ImportedSelection):
    """As for executed ones, directly after the responses."""

    parent = "responses"


PIPELINE = Pipeline(
    name="imported-unexecuted",
    description="Imported responses are selected without being executed; no model writes.",
    stages=(ImportedResponses(), UnexecutedSelection()),
)
