"""The recorded run's input: functions of Python's standard library, laid out as they were when it was recorded.

`recording.jsonl` holds what Qwen2.5-Coder-1.5B wrote for 23 seeds, and `seeds.jsonl` says where they were found. Their
text is taken from the interpreter that runs the test. Each function is moved to its recorded line, since a seed's line
is part of its identity. A function that another release of Python has changed is left out, so every release can replay
the recording, if with fewer seeds.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import seeds as reader

RECORDING = Path(__file__).parent / "recording.jsonl"
LICENSE = "# SPDX-License-Identifier: PSF-2.0"


class Seeds(NamedTuple):
    """A folder to give to `--seeds`."""

    folder: Path
    good: int
    """Seeds that the filters keep, for `--n`."""

    def run(self, *arguments: str) -> list[str]:
        """Return the arguments of `codealign` that run the pipeline on these seeds."""
        return ["run", "--preset", "small", "--seeds", str(self.folder), "--n", str(self.good), *arguments]

    def replay(self, *arguments: str) -> list[str]:
        """Return the arguments of `codealign` that also start the services, on the recording."""
        return self.run("--engine", "replay", "--recording", str(RECORDING), *arguments)


def write_seeds(folder: Path) -> Seeds:
    """Write the recorded seeds that this interpreter has into an empty folder.

    Args:
        folder: Created if missing.
    """
    good = 0
    for line in (Path(__file__).parent / "seeds.jsonl").read_text(encoding="utf-8").splitlines():
        place = json.loads(line)
        found = _unchanged(**{key: place[key] for key in ("path", "name", "sha256")})
        if found:
            _append(folder / place["path"], found, place["line"])
            good += place["good"]
    return Seeds(folder, good)


def _unchanged(path: str, name: str, sha256: str) -> pb.Seed | None:
    source = reader.stdlib_folder() / path
    collected = reader.Collected()
    if source.exists():
        reader.read_source(source.read_bytes(), path, collected)
    hashes = {hashlib.sha256(seed.code.encode()).hexdigest(): seed for seed in collected.seeds if seed.name == name}
    return hashes.get(sha256)


def _append(file: Path, seed: pb.Seed, line: int) -> None:
    """Put a function at a line of a file, after the imports that it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = file.read_text(encoding="utf-8").split("\n") if file.exists() else [LICENSE]
    lines += seed.imports
    decorators = ast.parse(seed.code).body[0].lineno - 1
    lines += [""] * (line - decorators - 1 - len(lines))
    lines += seed.code.rstrip("\n").split("\n")
    file.write_text("\n".join(lines), encoding="utf-8")
