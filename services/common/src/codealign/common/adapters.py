"""The LoRA adapter beside a trained model's merged weights, as the trainer writes it and inference reads it.

`<model>/adapter` has PEFT's files (adapter_config.json, adapter_model.safetensors), the tokenizer, the generation
settings and `codealign.json`, which says what the adapter belongs to. It is not part of the model's revision, because
the merged weights determine the same model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "adapter"
CONFIG, WEIGHTS, NOTE = "adapter_config.json", "adapter_model.safetensors", "codealign.json"


@dataclass(frozen=True, slots=True)
class Belonging:
    """What an adapter belongs to."""

    base_model: str
    """Name of the base model, for people."""
    base_revision: str
    """Revision of the model that the adapter changes; any other gives other completions."""
    revision: str
    """Revision of the model with merged weights."""
    weights_sha256: str
    """Digest of the adapter's weights."""


def digest(folder: Path) -> str:
    """Return the digest of an adapter's weights."""
    with (folder / WEIGHTS).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_belonging(folder: Path, base_model: str, base_revision: str, revision: str) -> None:
    """Write what the adapter in `folder` belongs to."""
    found = Belonging(base_model, base_revision, revision, digest(folder))
    (folder / NOTE).write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")


def read_belonging(folder: Path) -> Belonging:
    """Return what the adapter in `folder` belongs to.

    Raises:
        ValueError: The file is missing or damaged, or the weights are other ones; the message says which.
    """
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        belonging = Belonging(**{name: str(found[name]) for name in Belonging.__dataclass_fields__})
        actual = digest(folder)
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / NOTE} is damaged ({type(error).__name__}: {error})") from error
    if actual != belonging.weights_sha256:
        raise ValueError(f"{folder / WEIGHTS} is damaged: its digest is not the one in {NOTE}")
    return belonging
