"""Imported responses: they are selected and published like our own. No model is needed.

`imported` executes them with their tests. `imported-unexecuted` does not, for data without tests or in other languages;
its rows say so.
"""

from __future__ import annotations

from codealign.coordinator.pipelines.imported.responses import ImportedPrograms, ImportedResponses
from codealign.coordinator.pipelines.imported.selection import ImportedSelection
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution

PIPELINES = [
    Pipeline(
        name="imported",
        description="Imported responses are kept where their own tests pass here; no model writes.",
        stages=(ImportedPrograms(), ResponseExecution(), ImportedSelection()),
    ),
    Pipeline(
        name="imported-unexecuted",
        description="Imported responses are selected without being executed; no model writes.",
        stages=(ImportedResponses(), ImportedSelection(parent="responses")),
    ),
]
