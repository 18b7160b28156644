"""Imported responses: they are executed with their tests, selected and published like our own. No model is needed."""

from __future__ import annotations

from codealign.coordinator.pipelines.imported.responses import ImportedPrograms
from codealign.coordinator.pipelines.imported.selection import ImportedSelection
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution

PIPELINE = Pipeline(
    name="imported",
    description="Imported responses are kept where their own tests pass here; no model writes.",
    stages=(ImportedPrograms(), ResponseExecution(), ImportedSelection()),
)
