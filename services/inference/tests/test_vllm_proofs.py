"""A batch-invariant vLLM promises the same tokens only with a proof for this version, GPU and model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from codealign.common.errors import ConfigurationError
from codealign.inference.engines.vllm.proofs import Setup, record, unproved

SETUP = Setup(vllm="0.33.0", capability="9.0", model="a" * 64, dtype="bfloat16", tensor_parallel=1)


def test_without_prefix_caching_there_is_nothing_to_prove(tmp_path: Path) -> None:
    assert unproved(tmp_path / "proofs.json", SETUP, prefix_caching=False, adapters=False) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"vllm": "0.34.0"},
        {"capability": "8.0"},
        {"model": "b" * 64},
        {"dtype": "float16"},
        {"tensor_parallel": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_proof_holds_for_exactly_what_was_compared(tmp_path: Path, change: dict[str, str]) -> None:
    file = tmp_path / "cache" / "proofs.json"
    before = unproved(file, SETUP, prefix_caching=True, adapters=False)
    assert before == (
        "that a warm prefix cache gives the same tokens is not proved for vLLM 0.33.0, compute capability 9.0, "
        "bfloat16, 1 GPU, model aaaaaaaaaaaa"
    )
    record(file, SETUP)
    record(file, SETUP)
    other = dataclasses.replace(SETUP, **change)  # type: ignore[arg-type]
    assert unproved(file, SETUP, prefix_caching=True, adapters=False) == ""
    assert unproved(file, other, prefix_caching=True, adapters=False) != ""
    record(file, other)
    assert unproved(file, SETUP, prefix_caching=True, adapters=False) == ""
    assert unproved(file, other, prefix_caching=True, adapters=False) == ""


def test_nothing_is_proved_of_lora_layers(tmp_path: Path) -> None:
    record(tmp_path / "proofs.json", SETUP)
    found = unproved(tmp_path / "proofs.json", SETUP, prefix_caching=False, adapters=True)
    assert found.startswith("that LoRA layers give the same tokens is not proved")


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    file = tmp_path / "proofs.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match="delete it and repeat `make test-gpu`"):
        unproved(file, SETUP, prefix_caching=True, adapters=False)
