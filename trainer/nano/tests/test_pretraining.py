"""The recipe depends only on its parameters, and a model learns from it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from codealign.nano import pretraining
from codealign.nano.__main__ import DATA, RECIPES, build, replace_files, texts_of
from codealign.nano.identity import recipe_sha256, sha256
from codealign.nano.pretraining import Recipe, Step
from codealign.nano.tokenizer import END

SMALL = Recipe(documents=60, tokenizer_documents=40, vocabulary=512, context=64, width=64, layers=2, heads=2, batch=16)


def test_the_recipe_run_twice_gives_the_same_texts_and_tokenizer() -> None:
    once, again = (pretraining.write_corpus(SMALL, workers) for workers in (1, 2))
    assert once == again
    one, other = (pretraining.build_tokenizer(SMALL, once).backend_tokenizer.to_str() for _ in range(2))
    assert one == other
    assert pretraining.write_corpus(replace(SMALL, seed=1), 1) != once
    assert pretraining.write_corpus(replace(SMALL, careless_share=0.0), 1) != once


def test_writing_the_corpus_forks_no_process_that_may_have_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise AssertionError("a child of fork waits for ever for locks that other threads held")

    monkeypatch.setattr(os, "fork", refuse)
    assert len(pretraining.write_corpus(SMALL, 2)) == SMALL.documents


def test_numbers_are_copied_digit_by_digit_and_every_text_comes_back() -> None:
    tokenizer = pretraining.build_tokenizer(SMALL, pretraining.write_corpus(SMALL, 1))
    assert tokenizer.tokenize("[12, 345]") == ["[", "1", "2", ",", "Ġ3", "4", "5", "]"]
    assert tokenizer.tokenize("x\n\n    y") == ["x", "Ċ", "Ċ", *tokenizer.tokenize("    y")]
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id == tokenizer.eos_token_id
    text = 'def f(x):\n    return "ä→ \\t"  # 1\n'
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_documents_are_ended_by_the_end_token() -> None:
    corpus = pretraining.write_corpus(SMALL, 1)
    tokenizer = pretraining.build_tokenizer(SMALL, corpus)
    data = pretraining.windows(SMALL, tokenizer, corpus)
    assert data.shape[1] == SMALL.context + 1
    assert torch.equal(data[1:, 0], data[:-1, -1])  # a window's last target is the next window's first input
    text = tokenizer.decode(torch.cat([data[0, :1], data[:, 1:].flatten()]))
    assert "".join(corpus).startswith(text.replace(END, ""))
    assert len(corpus) - 1 <= text.count(END) <= len(corpus)


def test_a_model_learns_and_is_sealed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(SMALL, tmp_path / "model", workers=1)
    assert "left" in capsys.readouterr().out
    curve = [float(line.split(",")[1]) for line in (tmp_path / "model/loss.csv").read_text().splitlines()[1:]]
    assert curve[-1] < curve[0] / 1.5
    sealed = json.loads((tmp_path / "model/config.json").read_text())["codealign_nano"]
    assert sealed["recipe_sha256"] == recipe_sha256(SMALL) != recipe_sha256(replace(SMALL, width=128))
    assert sealed["weights_sha256"] == sha256(tmp_path / "model/model.safetensors")


def test_the_rate_rises_falls_and_ends_near_zero() -> None:
    rates = [pretraining.rate(SMALL, number, 100) for number in range(100)]
    assert rates[4] == max(rates) == 1.0
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_every_step_is_told() -> None:
    corpus = pretraining.write_corpus(SMALL, 1)
    tokenizer = pretraining.build_tokenizer(SMALL, corpus)
    told: list[Step] = []
    model = pretraining.new_model(SMALL, tokenizer)
    pretraining.train(SMALL, model, pretraining.windows(SMALL, tokenizer, corpus)[:32], told.append)
    assert [(step.number, step.total) for step in told] == [(1, 2), (2, 2)]


def test_the_committed_texts_are_what_the_recipe_writes(tmp_path: Path) -> None:
    for number, (folder, texts) in enumerate(texts_of(Recipe()).items()):
        replace_files(tmp_path / str(number), texts)
        for path in (tmp_path / str(number)).iterdir():
            assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
        assert len(list(folder.iterdir())) == len(texts)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_tokenizer_and_weights_belong_together(name: str) -> None:
    sealed = json.loads((DATA / name / "config.json").read_text())["codealign_nano"]
    assert sealed == {
        "recipe_sha256": recipe_sha256(RECIPES[name]),
        "tokenizer_sha256": sha256(DATA / name / "tokenizer.json"),
        "weights_sha256": sha256(DATA / name / "model.safetensors"),
    }, "the recipe was changed: `make nano` makes the models anew"
