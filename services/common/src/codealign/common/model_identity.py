"""Identity of a model directory: a hash over everything that determines the model's output."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

# Files of a model directory that determine its completions. Others (README, optimizer states) do not.
_IDENTITY_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "model.safetensors.index.json",
)
_CHUNK = 2**20


def revision(folder: Path, cache_folder: Path) -> str:
    """Return the model's revision: 64 hexadecimal digits, equal for equal weights, tokenizer and configuration.

    Args:
        folder: The model's directory.
        cache_folder: Directory in which digests of large files are cached by path, size and modification time.
    """
    names = sorted({path.name for path in folder.glob("*.safetensors")} | set(_IDENTITY_FILES))
    return _hash_of(folder, names, cache_folder, b"codealign model 1\n")


def tokenizer_revision(folder: Path, cache_folder: Path) -> str:
    """Return the same for the files beside the weights, for a model whose weights another server has."""
    names = sorted(set(_IDENTITY_FILES) - {"model.safetensors.index.json"})
    return _hash_of(folder, names, cache_folder, b"codealign tokenizer 1\n")


def _hash_of(folder: Path, names: Sequence[str], cache_folder: Path, kind: bytes) -> str:
    total = hashlib.sha256(kind)
    for name in names:
        path = folder / name
        if path.is_file():
            total.update(f"{name}\0{_digest(path.resolve(), cache_folder)}\n".encode())
    return total.hexdigest()


def _digest(path: Path, cache_folder: Path) -> str:
    """Return the file's sha256, cached because hashing 3 GB takes seconds at every start."""
    stat = path.stat()
    if stat.st_size < _CHUNK:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    key = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    note = cache_folder / "digests" / f"{key}.json"
    state = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    try:
        remembered = json.loads(note.read_text())
        if {name: remembered[name] for name in state} == state:
            return str(remembered["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({**state, "sha256": digest}))
        draft.replace(note)
    except OSError:
        pass  # an unwritable cache costs time, never correctness
    return digest
