"""Settings of a training that the training service would refuse are named by their paths."""

from __future__ import annotations

from typing import Any

import pytest

from codealign.api.training.v1 import training_pb2 as api
from codealign.common.training_settings import MAX_EPOCHS, MAX_LENGTH, MAX_WORKERS, violations


def wrong(**fields: Any) -> dict[str, str]:
    return dict(violations(api.TrainingSpec(**fields), "loop.training"))


def test_what_is_left_out_has_valid_defaults() -> None:
    assert not wrong()
    assert not wrong(lora=api.Lora())


def test_the_largest_values_are_valid() -> None:
    assert not wrong(epochs=MAX_EPOCHS, max_length=MAX_LENGTH, workers=MAX_WORKERS, lora=api.Lora(rank=4096))


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"learning_rate": -1e-5}, "learning_rate", "is -1e-05; must be above 0, at most 1e+06 (0: 1e-5)"),
        ({"learning_rate": float("nan")}, "learning_rate", "is nan; must be above 0"),
        ({"epochs": 2000}, "epochs", "is 2000; must be above 0, at most 1000 (0: 4)"),
        ({"batch_size": -2}, "batch_size", "is -2; must be 1 to 65536 (0: 64)"),
        ({"max_length": MAX_LENGTH + 1}, "max_length", "is 1048577; must be 1 to 1048576 (0: 1280)"),
        ({"optimizer": "sgd"}, "optimizer", "is 'sgd'; must be one of adafactor, adamw"),
        ({"lora": api.Lora(rank=5000)}, "lora.rank", "is 5000; must be 1 to 4096 (0: 16)"),
        ({"lora": api.Lora(dropout=1.0)}, "lora.dropout", "is 1; must be at least 0 and below 1"),
        ({"lora": api.Lora(target_modules=["q_proj", ""])}, "lora.target_modules[1]", "is empty: name a linear layer"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_range(fields: dict[str, Any], path: str, says: str) -> None:
    found = wrong(**fields)
    assert list(found) == [f"loop.training.{path}"]
    assert says in found[f"loop.training.{path}"]


@pytest.mark.parametrize(("fields", "size"), [({"workers": 3}, 64), ({"workers": 3, "batch_size": 10}, 10)])
def test_a_batch_must_be_shared_equally(fields: dict[str, int], size: int) -> None:
    text = f"is {size}; must be a multiple of loop.training.workers (3)"
    assert wrong(**fields) == {"loop.training.batch_size": text}


def test_a_batch_out_of_range_is_no_wrong_multiple_too() -> None:
    assert list(wrong(batch_size=-1, workers=3)) == ["loop.training.batch_size"]
