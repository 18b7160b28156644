"""docs/gpus.md: its tables are what the code computes, and its arithmetic can be redone."""

from __future__ import annotations

import math

import pytest

from charts import gpus
from codealign.inference.layout import FEWEST_SAMPLES, GIB, MAX_CONTEXT, Architecture, Gpu, layout, token_bytes, worker

MODELS = {model.name.rpartition("/")[2]: model for model in gpus.MODELS}
QWEN = MODELS["CodeQwen1.5-7B"]
LARGE, SMALL = gpus.GPUS


def test_the_page_has_the_tables_that_the_code_computes() -> None:
    text = gpus.PAGE.read_text(encoding="utf-8")
    assert gpus.page(text) == text, "run `make gpu-tables`"


def test_a_page_without_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="shapes: begin"):
        gpus.page("# GPUs\n")


@pytest.mark.parametrize("model", gpus.MODELS, ids=lambda model: model.name)
def test_the_shapes_give_the_published_number_of_parameters(model: Architecture) -> None:
    matrices = sum(math.prod(shape) for shape in gpus.matrices(model).values())
    assert 0 <= model.parameters - matrices < 0.0005 * model.parameters, "the rest is norms and biases"


def test_the_example_of_the_page() -> None:
    one = worker(QWEN, LARGE, 1)
    assert token_bytes(QWEN, 1) == 64 * 1024
    assert [round(part / GIB, 1) for part in (one.weights, one.activations)] == [13.5, 1.0]
    assert round(one.cache_tokens, -3) == 894_000
    assert one.samples == 256


def test_more_gpus_than_key_value_heads_hold_copies() -> None:
    assert token_bytes(QWEN, 4) == token_bytes(QWEN, 8) == token_bytes(QWEN, 1) // 4


@pytest.mark.parametrize("gpu", gpus.GPUS, ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("model", gpus.MODELS, ids=lambda model: model.name)
def test_a_layout_fits_and_uses_no_more_gpus_than_there_are(model: Architecture, gpu: Gpu) -> None:
    for number in gpus.NUMBERS:
        found = layout(model, gpu, number)
        if found is None:
            assert model.parameters * 2 > 0.9 * gpu.memory * number / 2, "a model of half the memory fits"
            continue
        assert found.worker.gpus * found.replicas <= number
        assert found.worker.cache_tokens >= MAX_CONTEXT
        smaller = worker(model, gpu, found.worker.gpus // 2) if found.worker.gpus > 1 else None
        assert smaller is None or smaller.samples < FEWEST_SAMPLES


def test_training_needs_grow_with_the_model_and_shrink_with_lora() -> None:
    for gpu in gpus.GPUS:
        needs = [gpus.training_gpus(MODELS[name], gpu) or 99 for name in ("starcoder2-3b", "starcoder2-15b")]
        assert needs[0] <= needs[1]
    for model in gpus.MODELS:
        for gpu in gpus.GPUS:
            assert (gpus.training_gpus(model, gpu, lora=True) or 99) <= (gpus.training_gpus(model, gpu) or 99)
