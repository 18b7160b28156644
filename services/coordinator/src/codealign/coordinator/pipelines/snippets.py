"""Snippets: a few lines of existing code, drawn at random. Seeds are taken as they are, whole files as well."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.text import lines
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.stage import Seeds, Settings
from codealign.coordinator.rules import duplicates, seeds
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.seeds import Drop

MAX_LINES = 15
"""Most lines of a snippet (as in OSS-Instruct)."""


class AnyCode(Seeds):
    """Existing code of any form: functions or whole files."""

    name = "seeds"
    title = "Seeds"
    description = "Existing code is taken as it is, without near duplicates and benchmark texts."
    advice = "collect some with `codealign seeds collect PATH --files`"
    makes = pb.KIND_SEED
    VERSION = 1
    reasons = {
        "seed.empty": "contains no code",
        "seed.benchmark-text": seeds.RULES["seed.benchmark-text"],
        **duplicates.SEED_RULES,
    }
    threshold = duplicates.SEED_THRESHOLD

    def drop(self, record: pb.Record, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:  # noqa: ARG002
        """Return the rule that drops a seed without code or with a benchmark's text."""
        if not record.seed.code.strip():
            return Drop("seed.empty", "nothing but white space")
        if task := benchmarks.find(record.seed.code):
            return Drop("seed.benchmark-text", f"contains the text of {task}")
        return None

    def text(self, record: pb.Record) -> str:
        """Return the source."""
        return record.seed.code


def snippet(code: str, number: int) -> str:
    """Return 1 to MAX_LINES lines of code, fewer at its end. Empty if the code contains no text.

    Args:
        code: The code.
        number: The drawn number. Its digits, in a mixed radix, are the first line among those with text, and the number
            of lines.
    """
    found = lines(code)
    starts = [place for place, line in enumerate(found) if line.strip()]
    if not starts:
        return ""
    number, start = divmod(number, len(starts))
    return "\n".join(found[starts[start] : starts[start] + 1 + number % MAX_LINES])


def snippet_of(shot: FewShot) -> str:
    """Return a few-shot example's snippet, the same in every prompt."""
    return snippet(shot.seed, records.seed_for(0, "snippet", shot.name))
