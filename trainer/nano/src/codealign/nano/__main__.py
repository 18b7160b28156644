"""`python -m codealign.nano`: rebuild all committed files of nano from scratch (`make nano`).

Writes the seeds, the few-shot examples and the benchmark, and each model with its tokenizer. With `--texts`, only the
texts; with `--only`, only one model.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from codealign.coordinator.pipelines import evol_instruct, selfcodealign
from codealign.nano import pretraining
from codealign.nano.card import write_card
from codealign.nano.fewshots import write_evolved, write_fewshots
from codealign.nano.identity import recipe_sha256, sha256
from codealign.nano.pretraining import Recipe, Step
from codealign.nano.seeds import write_seeds
from codealign.nano.tasks import write_tasks

DATA = Path(__file__).parent / "data"
RECIPES = {"model": Recipe(), "teacher": Recipe(careless_share=0.0)}
"""The recipe of each model by its folder in `DATA`. The teacher learns from careful authors only."""
FEWSHOTS = Path(selfcodealign.__file__).parent / "few_shots/nano"
EVOLVED = Path(evol_instruct.__file__).parent / "few_shots/nano"
_SHOWN_EVERY = 20


def main() -> None:
    """Rebuild nano."""
    parser = argparse.ArgumentParser(prog="python -m codealign.nano", description="Rebuild nano from its recipe.")
    parser.add_argument(
        "--texts", action="store_true", help="write only the seeds, the few-shot examples and the benchmark"
    )
    parser.add_argument(
        "--workers", type=int, default=torch.get_num_threads(), help="number of processes that write documents"
    )
    parser.add_argument("--only", choices=list(RECIPES), help="make only this model, and no texts")
    given = parser.parse_args()
    if not given.only:
        for folder, texts in texts_of(RECIPES["model"]).items():
            replace_files(folder, texts)
            print(f"{folder}: {len(texts)} files")
    if not given.texts:
        for name in [given.only] if given.only else RECIPES:
            build(RECIPES[name], DATA / name, given.workers)


def texts_of(recipe: Recipe) -> dict[Path, dict[str, str]]:
    """Return the committed texts by folder and file name."""
    tasks = write_tasks(recipe.seed)
    return {
        DATA / "benchmark": {"NanoEval.jsonl": "".join(json.dumps(task) + "\n" for task in tasks)},
        DATA / "seeds": write_seeds(recipe.seed, tasks),
        FEWSHOTS: write_fewshots(recipe.seed),
        EVOLVED: write_evolved(recipe.seed),
    }


def replace_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Replace a folder's content with the given files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def build(recipe: Recipe, folder: Path, workers: int) -> None:
    """Pre-train the model and save it with its tokenizer, loss curve and card."""
    started = time.monotonic()
    corpus = pretraining.write_corpus(recipe, workers)
    characters = sum(map(len, corpus))
    print(f"{len(corpus):,} documents, {characters:,} characters [{time.monotonic() - started:.0f} s]")
    tokenizer = pretraining.build_tokenizer(recipe, corpus)
    data = pretraining.windows(recipe, tokenizer, corpus)
    print(f"{len(data):,} windows of {recipe.context:,} tokens [{time.monotonic() - started:.0f} s]", flush=True)
    model = pretraining.new_model(recipe, tokenizer)
    curve: list[tuple[int, float]] = []

    def tell(step: Step) -> None:
        curve.append((step.number, step.loss))
        if step.number % _SHOWN_EVERY == 0 or step.number == step.total:
            recent = [loss for _, loss in curve[-_SHOWN_EVERY:]]
            left = (step.total - step.number) * recipe.batch * recipe.context / step.tokens_per_second
            print(
                f"step {step.number:,}/{step.total:,}  loss {sum(recent) / len(recent):.4f}  "
                f"{step.tokens_per_second:,.0f} tokens/s  left {left / 60:.0f} min",
                flush=True,
            )

    pretraining.train(recipe, model, data, tell)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with (folder / "loss.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("step", "loss"), *((n, f"{loss:.4f}") for n, loss in curve)])
    seal(recipe, folder)
    minutes = (time.monotonic() - started) / 60
    card = write_card(folder.name, recipe, sum(each.numel() for each in model.parameters()), len(data), curve, minutes)
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{folder}: done in {minutes:.0f} minutes")


def seal(recipe: Recipe, folder: Path) -> None:
    """Record the hashes of recipe, tokenizer and weights in the model's configuration, to detect mismatches."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["codealign_nano"] = {
        "recipe_sha256": recipe_sha256(recipe),
        "tokenizer_sha256": sha256(folder / "tokenizer.json"),
        "weights_sha256": sha256(folder / "model.safetensors"),
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
