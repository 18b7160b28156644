"""What was proved about vLLM here: that a warm prefix cache gives the same tokens as a cold one.

vLLM's batch invariance makes kernels independent of the batch. A hit of the prefix cache changes the shape of the
prefill, which that alone does not cover. `make test-gpu` compares the two and records the result in a file, for one
version of vLLM, one kind of GPU and one model. An engine promises the same tokens only with such a record, or without
prefix caching.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from codealign.common.errors import ConfigurationError

FILE = "vllm-proofs.json"
LEAST_CAPABILITY = (8, 0)
"""Compute capability that vLLM's batch invariance needs (docs.vllm.ai, "Batch Invariance")."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a proof holds for."""

    vllm: str
    """Version."""
    capability: str
    """Compute capability of the GPUs, such as "9.0"."""
    model: str
    """Revision."""
    dtype: str
    tensor_parallel: int

    def __str__(self) -> str:
        return (
            f"vLLM {self.vllm}, compute capability {self.capability}, {self.dtype}, {self.tensor_parallel} GPU, model "
            f"{self.model[:12]}"
        )


def record(file: Path, setup: Setup) -> None:
    """Add a proof to the file."""
    known = _read(file)
    if asdict(setup) not in known:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".partial")
        partial.write_text(json.dumps([*known, asdict(setup)], indent=1) + "\n", encoding="utf-8")
        partial.replace(file)


def unproved(file: Path, setup: Setup, *, prefix_caching: bool, adapters: bool) -> str:
    """Return what is not proved of a batch-invariant engine, or "" if it may promise the same tokens.

    Args:
        file: The proofs. It need not exist.
        setup: The engine's.
        prefix_caching: Whether it caches prefixes.
        adapters: Whether it computes with LoRA layers, whose kernels have no batch-invariant variant.

    Raises:
        ConfigurationError: The file is damaged.
    """
    if not prefix_caching and not adapters:
        return ""
    if not adapters and asdict(setup) in _read(file):
        return ""
    what = "LoRA layers" if adapters else "a warm prefix cache"
    return f"that {what} give{'' if adapters else 's'} the same tokens is not proved for {setup}"


def _read(file: Path) -> list[dict[str, object]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read ({error}): delete it and repeat `make test-gpu`") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ConfigurationError(f"{file} is no list of proofs: delete it and repeat `make test-gpu`")
    return found
