"""Hashes of recipe, tokenizer and weights, which must match each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from codealign.nano.documents import draw_documents
from codealign.nano.pretraining import Recipe

_PROBE = 200
"""Number of documents that represent the corpus: enough for every form and nearly every block."""


def recipe_sha256(recipe: Recipe) -> str:
    """Return a hash of the recipe's parameters and of the first documents that it generates."""
    documents = draw_documents(recipe.seed, recipe.careless_share, range(_PROBE))
    parts = [json.dumps(asdict(recipe), sort_keys=True), *documents]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def sha256(file: Path) -> str:
    """Return a file's sha256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
