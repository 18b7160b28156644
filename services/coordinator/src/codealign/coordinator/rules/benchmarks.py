"""Benchmark texts that must not occur in a seed or a row (decontamination by substring).

The files are the user's own copies: JSON lines, plain or gzipped, as HumanEval, HumanEval+, MBPP and MBPP+ are
published. As texts count a prompt's docstring or description and the canonical solution, each of a length that
cannot be a coincidence.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codealign.common.errors import ConfigurationError

MIN_CHARS = 40
"""Texts shorter than this, white space removed, occur in innocent code: `return len(strings)`."""
_FIELDS = ("prompt", "text", "canonical_solution", "code")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class BenchmarkTexts:
    """The texts, white space removed, with where each came from."""

    texts: tuple[tuple[str, str], ...] = ()
    """(text, "HumanEval/3")."""

    @property
    def sha256(self) -> str:
        """A hash of all texts; empty where there are none."""
        if not self.texts:
            return ""
        return hashlib.sha256("\0".join(text for text, _ in self.texts).encode()).hexdigest()

    def find(self, *sources: str) -> str | None:
        """The task whose text occurs in one of the sources, or None."""
        squeezed = [_SPACE.sub("", source) for source in sources]
        for text, task in self.texts:
            if any(text in source for source in squeezed):
                return task
        return None


def load(path: Path | None) -> BenchmarkTexts:
    """Read a file, or every .jsonl and .jsonl.gz of a folder.

    Raises:
        ConfigurationError: Names the file and line that cannot be read.
    """
    if path is None:
        return BenchmarkTexts()
    if not path.exists():
        raise ConfigurationError(f"benchmarks: {path} does not exist; give a .jsonl(.gz) file or a folder of them")
    files = (
        sorted(item for item in path.iterdir() if item.name.endswith((".jsonl", ".jsonl.gz")))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise ConfigurationError(f"benchmarks: no .jsonl or .jsonl.gz file in {path}")
    found: dict[str, str] = {}
    for file in files:
        for text, task in _texts(file):
            squeezed = _SPACE.sub("", text)
            if len(squeezed) >= MIN_CHARS:
                found.setdefault(squeezed, task)
    return BenchmarkTexts(tuple(sorted(found.items())))


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    number = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                task = str(row.get("task_id", f"{file.name}:{number}"))
                for field in _FIELDS:
                    if isinstance(row.get(field), str):
                        yield row[field], task
                        yield from ((text, task) for text in _docstrings(row[field]))
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"benchmarks: {file}, line {number}: cannot be read ({error})") from None


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        try:
            tree = ast.parse(source + "\n    pass\n")  # HumanEval's prompts end after the docstring
        except (SyntaxError, ValueError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield text.split(">>>")[0]
