"""What a model was made of, as hashes: recipe, tokenizer and weights belong together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from codealign.nano.pretraining import Recipe, write_documents

_PROBE = 200
"""Documents that stand for the corpus: enough that every form and nearly every block occurs."""


def recipe_sha256(recipe: Recipe) -> str:
    """A hash of the recipe's numbers and of the first documents that its rules write."""
    parts = [json.dumps(asdict(recipe), sort_keys=True), *write_documents(recipe.seed, range(_PROBE))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def sha256(file: Path) -> str:
    """A file's hash."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
