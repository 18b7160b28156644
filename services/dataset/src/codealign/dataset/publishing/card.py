"""Files beside the data: the dataset card for people and the Hub, and the manifest for programs. Pure.

Both depend only on the rows, the promise, the title and the facts, never on times, hosts or run ids.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.text import yaml_quoted
from codealign.dataset.publishing.table import FORMAT, NOT_EXECUTED, Row, columns
from codealign.dataset.storage.catalogue import VersionFile

PROMISES = {
    "replayable": "Replaying the recorded {recorded} gives these rows again, byte for byte.",
    "reproducible": "Running the same seeds with the same model on a batch-invariant engine gives these rows again, "
    "byte for byte; so does replaying the recorded {recorded}.",
}
DEFAULT_PROMISE = "replayable"

# Size categories of the Hub: https://huggingface.co/docs/hub/datasets-cards
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"

# Underscores inside words mark nothing: names of facts and verdicts keep theirs.
_MARKUP = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
# Invisible characters without those that join emoji: controls, bidirectional marks, zero-width ones, tags.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,200}")


@dataclass
class Counts:
    """Counts shown on a card."""

    rows: int = 0
    seeds: set[str] = field(default_factory=set)
    categories: Counter[str] = field(default_factory=Counter)
    difficulties: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    tests_in_instruction: int = 0
    compared: int = 0
    """Rows whose response was compared with other attempts."""
    imports: dict[str, Counter[str]] = field(default_factory=dict)
    """Imported rows by the id of their Import and by licence."""
    given: Counter[str] = field(default_factory=Counter)
    """Rows made here from imported instructions, by licence."""
    sources: dict[str, pb.Record] = field(default_factory=dict)
    """The Import records, by id."""

    @property
    def imported(self) -> int:
        """Number of rows whose response was imported. The others were made here."""
        return sum(licenses.total() for licenses in self.imports.values())

    @property
    def executed(self) -> bool:
        """Whether the rows have verdicts. Either all of them do, or none."""
        return NOT_EXECUTED not in self.verdicts

    def add(self, row: Row, *, from_import: bool = False) -> None:
        """Count a row.

        Args:
            row: The row.
            from_import: Whether its first record was imported. A seed's licence is in a column of its own.
        """
        self.rows += 1
        if row["seed_code"]:
            self.seeds.add(row["lineage"][0]["id"])
        if row["imported_from"]:
            self.imports.setdefault(row["imported_from"], Counter())[row["license"]] += 1
        elif row["license"] or (from_import and not row["seed_code"]):
            self.given[row["license"]] += 1
        self.categories[row["category"]] += 1
        self.difficulties[row["difficulty"]] += 1
        self.licenses[row["seed_license"]] += 1
        self.models[row["model_revision"]] += 1
        self.verdicts[row["verdict"]] += 1
        self.tests_in_instruction += row["tests_in_instruction"]
        self.compared += row["attempts"] is not None


@dataclass(frozen=True)
class Description:
    """The publisher's description of a version."""

    title: str
    """Title of the card. Empty: the version's name."""
    promise: str
    facts: Mapping[str, str]


def card(name: str, about: Description, counts: Counts) -> str:
    """Return README.md, with the front matter that `datasets` and the Hub read."""
    size = next((label for bound, label in _SIZES if counts.rows < bound), _LARGEST)
    lines = [
        "---",
        f"pretty_name: {yaml_quoted(about.title or name)}",
        "language:",
        "- en",
        "- code",
        "task_categories:",
        "- text-generation",
        "tags:",
        "- code",
        "- synthetic",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train-*.parquet",
        "---",
        "",
        f"# {_cell(about.title) or name}",
        "",
        f"{_origin(about, counts)} {_execution(counts)}",
        "",
        f"Version `{name}`, {about.promise}: {_promise(about, counts)} `manifest.json` has the hash of each file.",
        "",
        *_table("Count", "Rows", _counted(counts)),
    ]
    if counts.imported:
        lines += ["", *_imports(counts)]
    if about.facts:
        lines += ["", *_table("Fact", "Value", sorted(about.facts.items()))]
    lines += [
        "",
        f"`instruction` and `response` are what a model is trained on; `tests` {_tests(counts)}. `imported_from` "
        "says which import an imported response came from, and `license` is the licence of an imported response, or of "
        "the imported instruction that a model answered. `seed_code`, "
        "`seed_path` and `seed_line` say where the row began, and `lineage` names the records that it came from, by "
        "stage: `codealign data lineage <id>`.",
        "",
        *(_compared() if counts.compared else ()),
    ]
    return "\n".join(lines)


def _compared() -> list[str]:
    """Explain the columns of rows whose attempts were compared."""
    return [
        "Several responses to an instruction were compared with each other, by what they return for the same inputs "
        "and by each other's tests. `attempts` is their number, and `class_size` how many of them do the same as the "
        "row's, itself included. `tests_share` is the share of the others' tests that it passes. `mutation_score` is "
        "the share of small faults in it that its own tests detect, and `surviving_mutants` has the others. "
        "`added_tests` are the assertions among `tests` that CodeAlign wrote, not the model.",
        "",
    ]


def manifest(name: str, content_sha256: str, about: Description, counts: Counts, files: Sequence[VersionFile]) -> str:
    """Return the content of manifest.json."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "title": about.title,
        "promise": about.promise,
        "rows": counts.rows,
        "made": counts.rows - counts.imported,
        "imported": counts.imported,
        "imports": [_import(counts, import_id) for import_id in sorted(counts.imports)],
        "licenses": dict(_licenses(counts)),
        "executed": counts.executed,
        "verdicts": dict(counts.verdicts),
        "content_sha256": content_sha256,
        "schema": list(columns()),
        "facts": dict(about.facts),
        "files": [vars(file) for file in files],
    }
    return json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _import(counts: Counts, import_id: str) -> dict[str, Any]:
    source = counts.sources[import_id].import_source
    return {
        "id": import_id,
        "name": source.name,
        "sha256": source.sha256,
        "format": source.format,
        "rows": counts.imports[import_id].total(),
        "licenses": dict(counts.imports[import_id]),
    }


def _licenses(counts: Counts) -> Counter[str]:
    """Return the rows with an imported response or instruction by licence; "" is unknown."""
    return sum(counts.imports.values(), Counter(counts.given))


def _imports(counts: Counts) -> list[str]:
    rows = ["| Import | Format | Rows | Licences | sha256 |", "| --- | --- | --- | --- | --- |"]
    for import_id in sorted(counts.imports):
        source, licenses = counts.sources[import_id].import_source, counts.imports[import_id]
        listed = ", ".join(f"{_cell(name) or 'unknown'} {number:,}" for name, number in sorted(licenses.items()))
        rows.append(
            f"| {_cell(source.name)} (`{import_id[:12]}`) | {_cell(source.format)} | {licenses.total():,} | {listed} "
            f"| `{source.sha256}` |"
        )
    return rows


def _origin(about: Description, counts: Counts) -> str:
    if not counts.imported:
        return f"Instructions with responses that a model wrote, made by {_maker(about)}."
    if counts.imported == counts.rows:
        return f"Instructions with responses that others published, imported and selected by {_maker(about)}."
    return (
        f"Instructions with responses, selected by {_maker(about)}: {counts.rows - counts.imported:,} that a model "
        f"wrote here, and {counts.imported:,} that others published."
    )


def _maker(about: Description) -> str:
    pipeline = about.facts.get("pipeline", "")
    if not pipeline:
        return "CodeAlign"
    plain = _PLAIN_NAME.fullmatch(pipeline)
    return f"CodeAlign's pipeline `{pipeline}`" if plain else f"CodeAlign's pipeline {_cell(pipeline)}"


def _promise(about: Description, counts: Counts) -> str:
    recorded = ["completions"] if counts.imported < counts.rows else []
    recorded += ["imports"] if counts.imported else []
    recorded += ["verdicts"] if counts.executed else []
    *first, last = recorded
    return PROMISES[about.promise].format(recorded=f"{', '.join(first)} and {last}" if first else last)


def _execution(counts: Counts) -> str:
    if not counts.executed:
        return "Nothing was executed: no response has a verdict, and whether it is right is not known."
    if set(counts.verdicts) == {"PASSED"}:
        return "Each response passed its tests in a gVisor sandbox."
    found = ", ".join(f"{name} {number:,}" for name, number in sorted(counts.verdicts.items()))
    return (
        "Each response was executed with its tests in a gVisor sandbox, and not all passed: the column `verdict` says "
        f"what came of it ({found})."
    )


def _tests(counts: Counts) -> str:
    if not counts.executed:
        return "is what was written to check the response, never run"
    return "is what the response passed" if set(counts.verdicts) == {"PASSED"} else "is what the response was run with"


def _counted(counts: Counts) -> list[tuple[str, str]]:
    pairs = [("all", counts.rows)]
    pairs += [("made here", counts.rows - counts.imported), ("imported", counts.imported)] if counts.imported else []
    pairs.append(("tests in the instruction", counts.tests_in_instruction))
    pairs += [("compared with other attempts", counts.compared)] if counts.compared else []
    groups = (
        ("category", counts.categories),
        ("difficulty", counts.difficulties),
        ("seed's licence", counts.licenses),
        ("model revision", counts.models),
        ("verdict", counts.verdicts),
        ("licence of imported text", _licenses(counts)),
    )
    for group, counter in groups:
        pairs += [(f"{group} {value or 'unknown'}", number) for value, number in sorted(counter.items())]
    return [*((label, f"{number:,}") for label, number in pairs), ("seeds", f"{len(counts.seeds - {''}):,}")]


def _table(left: str, right: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    rows = [f"| {_cell(one)} | {_cell(other)} |" for one, other in pairs]
    return [f"| {left} | {right} |", "| --- | --- |", *rows]


def _cell(text: str) -> str:
    """Return an untrusted text in one line of Markdown that shows it and nothing else.

    Licences, names of files and titles come from other people: links, images, HTML and what turns the direction of text
    must not act on the page of a dataset.
    """
    words = " ".join(text.split())
    return _MARKUP.sub(r"\\\g<0>", _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", words))
