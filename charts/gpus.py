"""Write the tables of docs/gpus.md, from the formulas of inference and training: `make gpu-tables`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from codealign.api.training.v1 import training_pb2 as api
from codealign.inference.layout import GIB, Architecture, Gpu, layout, worker
from codealign.trainer.estimate import estimate
from codealign.trainer.model_files import ModelFiles

PAGE = Path(__file__).parents[1] / "docs/gpus.md"
GPUS = (Gpu("80 GB", 79 * GIB), Gpu("24 GB", 22 * GIB))
NUMBERS = (1, 4, 8, 32)
MOST_TRAINING = 8
"""GPUs of one training pod."""
MODELS = (
    Architecture("bigcode/starcoder2-3b", 3_030_371_328, 30, 3072, 12288, 24, 2, 128, 49152),
    Architecture("bigcode/starcoder2-7b", 7_173_923_840, 32, 4608, 18432, 36, 4, 128, 49152),
    Architecture("Qwen/CodeQwen1.5-7B", 7_250_284_544, 32, 4096, 13440, 32, 4, 128, 92416),
    Architecture("bigcode/starcoder2-15b", 15_957_889_024, 40, 6144, 24576, 48, 4, 128, 49152),
    Architecture("deepseek-ai/deepseek-coder-33b-base", 33_342_991_360, 62, 7168, 19200, 56, 8, 128, 32256),
)
"""Shapes from each model's config.json, and parameters from its weights (vectors included)."""


def matrices(model: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's weight matrices: attention, MLP, embeddings and, if it is not tied, output."""
    attention, narrow = model.heads * model.head_size, model.key_value_heads * model.head_size
    gated = "starcoder2" not in model.name
    shapes: dict[str, tuple[int, ...]] = {"embed": (model.vocabulary, model.hidden)}
    for at in range(model.layers):
        shapes[f"{at}.q"], shapes[f"{at}.o"] = (attention, model.hidden), (model.hidden, attention)
        shapes[f"{at}.k"] = shapes[f"{at}.v"] = (narrow, model.hidden)
        shapes[f"{at}.up"], shapes[f"{at}.down"] = (
            (model.intermediate, model.hidden),
            (model.hidden, model.intermediate),
        )
        if gated:
            shapes[f"{at}.gate"] = (model.intermediate, model.hidden)
    if model.name not in ("bigcode/starcoder2-3b", "bigcode/starcoder2-7b"):
        shapes["lm_head"] = (model.vocabulary, model.hidden)
    return shapes


def training_gpus(model: Architecture, gpu: Gpu, *, lora: bool = False) -> int:
    """Return how many GPUs a training needs with the paper's settings and checkpointed activations; 0: more than 8."""
    spec = api.TrainingSpec(
        dtype="bfloat16", optimizer="adafactor", max_length=1280, gradient_checkpointing=True, sharding="fsdp"
    )
    if lora:
        spec.lora.rank = 16
    files = ModelFiles(
        tensors=matrices(model),
        layers=model.layers,
        hidden=model.hidden,
        intermediate=model.intermediate,
        heads=model.heads,
        key_value_heads=model.key_value_heads,
        head_size=model.head_size,
        vocabulary=model.vocabulary,
    )
    workers = 1
    while workers <= MOST_TRAINING:
        spec.workers = workers
        if estimate(files, spec, rows_at_once=1, device="cuda").memory <= gpu.memory:
            return workers
        workers *= 2
    return 0


def shapes_table() -> str:
    """Return the models' shapes and what one token of them takes."""
    rows = (
        (
            f"`{model.name}`",
            f"{model.parameters / 1e9:.2f}",
            model.layers,
            model.hidden,
            f"{model.heads} / {model.key_value_heads}",
            model.head_size,
            f"{model.parameters * 2 / GIB:.1f}",
            f"{worker(model, GPUS[0], 1).token // 1024}",
        )
        for model in MODELS
    )
    head = ("model", "parameters, 10⁹", "layers", "hidden", "heads / kv", "head size", "weights, GiB", "KiB per token")
    return _table(head, rows)


def layout_table(gpu: Gpu) -> str:
    """Return the layouts of every model on a class of GPUs."""
    head = ("model", "GPUs", "GPUs per worker", "workers", "cache per worker, tokens", "samples per worker", "in all")
    rows = []
    for model in MODELS:
        for number in NUMBERS:
            found = layout(model, gpu, number)
            shown: tuple[object, ...] = ("-", "does not fit", "-", "-", "-")
            if found is not None:
                each = found.worker
                shown = (each.gpus, found.replicas, f"{each.cache_tokens:,}", each.samples, f"{found.samples:,}")
            rows.append((model.name.rpartition("/")[2], number, *shown))
    return _table(head, rows)


def training_table() -> str:
    """Return the GPUs that a training needs."""
    head = ("model", *(f"{gpu.name}, {kind}" for gpu in GPUS for kind in ("all weights", "LoRA")))
    rows = (
        (
            model.name.rpartition("/")[2],
            *(
                training_gpus(model, gpu, lora=lora) or f"more than {MOST_TRAINING}"
                for gpu in GPUS
                for lora in (False, True)
            ),
        )
        for model in MODELS
    )
    return _table(head, rows)


def tables() -> dict[str, str]:
    """Return every table by its name in the page."""
    return {
        "shapes": shapes_table(),
        "layouts-80": layout_table(GPUS[0]),
        "layouts-24": layout_table(GPUS[1]),
        "training": training_table(),
    }


def page(text: str) -> str:
    """Return the page with its tables renewed.

    Raises:
        ValueError: The page has no place for one of them.
    """
    for name, table in tables().items():
        place = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        found = place.search(text)
        if found is None:
            raise ValueError(f"{PAGE} has no `<!-- {name}: begin -->` ... `<!-- {name}: end -->`")
        text = f"{text[: found.start()]}{found[1]}{table}\n{found[2]}{text[found.end() :]}"
    return text


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    """Renew the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
