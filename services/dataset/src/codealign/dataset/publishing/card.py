"""What stands beside the data: the dataset card for people and the hub, and the manifest for programs. Pure.

Both depend on the rows, the promise, the title and the facts alone: no times, hosts or run ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codealign.common.yaml_text import quoted
from codealign.dataset.publishing.table import FORMAT, Row, columns
from codealign.dataset.storage.catalogue import VersionFile

PROMISES = {
    "replayable": "Replaying the recorded completions and verdicts gives these rows again, byte for byte.",
    "reproducible": "Running the same seeds with the same model on a batch-invariant engine gives these rows again, "
    "byte for byte; so does replaying the recorded completions and verdicts.",
}
DEFAULT_PROMISE = "replayable"

# The hub's size categories: https://huggingface.co/docs/hub/datasets-cards
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"


@dataclass
class Counts:
    """What a card counts."""

    rows: int = 0
    seeds: set[str] = field(default_factory=set)
    categories: Counter[str] = field(default_factory=Counter)
    difficulties: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    tests_in_instruction: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        self.seeds.add(row["seed_id"])
        self.categories[row["category"]] += 1
        self.difficulties[row["difficulty"]] += 1
        self.licenses[row["seed_license"]] += 1
        self.models[row["model_revision"]] += 1
        self.tests_in_instruction += row["tests_in_instruction"]


@dataclass(frozen=True)
class Description:
    """What the publisher says of a version."""

    title: str
    """Empty: the card bears the version's name."""
    promise: str
    facts: Mapping[str, str]


def card(name: str, about: Description, counts: Counts) -> str:
    """README.md, with the front matter that `datasets` and the hub read."""
    size = next((label for bound, label in _SIZES if counts.rows < bound), _LARGEST)
    lines = [
        "---",
        f"pretty_name: {quoted(about.title or name)}",
        "language:",
        "- en",
        "- code",
        "task_categories:",
        "- text-generation",
        "tags:",
        "- code",
        "- synthetic",
        "- self-alignment",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train-*.parquet",
        "---",
        "",
        f"# {about.title or name}",
        "",
        "Instructions with responses that a base code model wrote from seed functions, by the SelfCodeAlign method "
        "(arXiv 2410.24198); each response passed its tests in a gVisor sandbox. Written by CodeAlign.",
        "",
        f"Version `{name}`, {about.promise}: {PROMISES[about.promise]} `manifest.json` has the hash of each file.",
        "",
        *_table("Count", "Rows", _counted(counts)),
    ]
    if about.facts:
        lines += ["", *_table("Fact", "Value", sorted(about.facts.items()))]
    lines += [
        "",
        "`instruction` and `response` are what a model is trained on; `tests` is what the response passed. "
        "`seed_code`, `seed_path` and `seed_line` say where the row began, and the `*_id` columns name "
        "the records that explain it: `codealign data lineage <id>`.",
        "",
    ]
    return "\n".join(lines)


def manifest(name: str, content_sha256: str, about: Description, counts: Counts, files: Sequence[VersionFile]) -> str:
    """manifest.json."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "title": about.title,
        "promise": about.promise,
        "rows": counts.rows,
        "content_sha256": content_sha256,
        "schema": list(columns()),
        "facts": dict(about.facts),
        "files": [vars(file) for file in files],
    }
    return json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _counted(counts: Counts) -> list[tuple[str, str]]:
    pairs = [("all", counts.rows), ("tests in the instruction", counts.tests_in_instruction)]
    groups = (
        ("category", counts.categories),
        ("difficulty", counts.difficulties),
        ("seed's licence", counts.licenses),
        ("model revision", counts.models),
    )
    for group, counter in groups:
        pairs += [(f"{group} {value or 'unknown'}", number) for value, number in sorted(counter.items())]
    return [*((label, f"{number:,}") for label, number in pairs), ("seeds", f"{len(counts.seeds - {''}):,}")]


def _table(left: str, right: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    rows = [f"| {_cell(one)} | {_cell(other)} |" for one, other in pairs]
    return [f"| {left} | {right} |", "| --- | --- |", *rows]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
