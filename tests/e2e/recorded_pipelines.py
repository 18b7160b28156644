"""Every pipeline in which a model writes, recorded on the embedded model.

`python -m tests.e2e.recorded_pipelines` (`make recordings`) records them again, which is necessary after a change of
nano, of its seeds, or of a prompt. It writes the completions, one file for each model, and the rows of each run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from codealign.cli.presets import load
from tests.e2e.commands import codealign

FOLDER = Path(__file__).parent / "recordings"
ROWS = FOLDER / "rows.json"
"""Digest of the rows that each pipeline published while it was recorded, by pipeline."""
COUNT = 10
"""Seeds of each run that begins with seeds."""
BENCHMARKS = load("nano").source("benchmarks")
"""The preset's own, which does not apply to a replay by itself."""
PIPELINES = {
    "nano": (
        "selfcodealign",
        "agreement",
        "seed-to-instruction",
        "random-snippets",
        "starcoder2-instruct",
        "oss-instruct",
        "evol-instruct",
        "evol-instruct-2",
    ),
    "teacher": ("distillation", "distillation-unexecuted"),
}
"""Runs by the model that writes, in an order in which each finds the tasks that it begins with. All but one have the
name of their pipeline."""
_OTHERWISE = {"agreement": ("--pipeline", "selfcodealign", "--strategy", "agreement")}
"""Arguments of the runs that have another name."""
_GIVEN = ("evol-instruct", "distillation")
"""Beginnings of the names of pipelines that begin with another run's tasks."""


def recording(model: str) -> Path:
    """Return the file with a model's completions."""
    return FOLDER / f"{model}.jsonl"


def run(name: str) -> list[str]:
    """Return the arguments of `codealign` for one of the runs."""
    arguments = ["run", *_OTHERWISE.get(name, ("--pipeline", name)), "--preset", "nano", "--name", name]
    if name.startswith(_GIVEN):
        return [*arguments, "--collection", "selfcodealign"]
    return [*arguments, "--n", str(COUNT)]


def published(home: Path) -> Iterator[Path]:
    """Yield the folders of the published versions."""
    for manifest in home.rglob("manifest.json"):
        yield manifest.parent


def digest(version: Path) -> str:
    """Return a hash of the set of a version's tasks, answers and tests.

    Not of their order: rows are sorted by id, and a verdict's id covers the digest of the runner's image, so a change
    of the runner orders the same rows otherwise.
    """
    import pyarrow.parquet as parquet

    columns = ["instruction", "response", "tests"]
    rows = [
        row
        for file in sorted(version.rglob("*.parquet"))
        for row in parquet.read_table(file, columns=columns).to_pylist()
    ]
    texts = sorted(json.dumps(row, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def record() -> None:
    """Run every pipeline and write what the tests replay."""
    FOLDER.mkdir(exist_ok=True)
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for model, pipelines in PIPELINES.items():
            recording(model).unlink(missing_ok=True)
            named = [] if model == "nano" else ["--model", model]
            for pipeline in pipelines:
                before = set(published(home))
                print(codealign(home, *run(pipeline), *named, "--record", str(recording(model))))
                (version,) = set(published(home)) - before
                digests[pipeline] = digest(version)
    ROWS.write_text(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    record()
