"""Pre-training of nano's model: Muon for the matrices inside the blocks, AdamW for the rest."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from codealign.nano import documents, functions
from codealign.nano.muon import Muon
from codealign.nano.tokenizer import train_tokenizer

_CHUNK = 500


@dataclass(frozen=True)
class Recipe:
    """All parameters of the build, except for the rules that generate the texts."""

    seed: int = 0
    documents: int = 36_000
    careless_share: float = functions.CARELESS_SHARE
    tokenizer_documents: int = 3_000
    vocabulary: int = 2048
    context: int = 1024
    """Context length in tokens."""
    width: int = 192
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 2
    """Each serves several heads (Ainslie et al., 2023), so that decoding reads a third of the keys and values."""
    feed_forward: int = 512
    batch: int = 8
    """Windows of `context` tokens per step."""
    learning_rate: float = 1.2e-2
    """Peak learning rate; linear rise over `warm_up`, then a cosine to zero."""
    warm_up: float = 0.05
    """Fraction of the steps."""
    weight_decay: float = 0.1
    """Weight decay of the matrices."""


@dataclass(frozen=True)
class Step:
    """Progress of a pre-training."""

    number: int
    total: int
    loss: float
    """Mean cross-entropy of this step's windows before the update, in nats per token."""
    tokens_per_second: float


def write_corpus(recipe: Recipe, workers: int) -> list[str]:
    """Return all documents, written by several processes."""
    chunks = [range(recipe.documents)[start : start + _CHUNK] for start in range(0, recipe.documents, _CHUNK)]
    write = partial(documents.draw_documents, recipe.seed, recipe.careless_share)
    # Forking would copy locks that another thread of this process holds, and the child would wait for them for ever.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(chain.from_iterable(pool.map(write, chunks)))


def build_tokenizer(recipe: Recipe, corpus: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train the recipe's tokenizer."""
    return train_tokenizer(corpus[: recipe.tokenizer_documents], recipe.context, recipe.vocabulary)


def windows(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, corpus: Sequence[str]) -> torch.Tensor:
    """Return the corpus as token windows `[count, context + 1]`, with an end token after each document."""
    end = tokenizer.eos_token_id
    parts = (corpus[start : start + _CHUNK] for start in range(0, len(corpus), _CHUNK))
    ids = chain.from_iterable(
        [*text, end] for part in parts for text in tokenizer(part, add_special_tokens=False, verbose=False).input_ids
    )
    tokens = torch.tensor(list(ids), dtype=torch.int32)
    count = (len(tokens) - 1) // recipe.context
    return tokens[: count * recipe.context + 1].unfold(0, recipe.context + 1, recipe.context)


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a model with random weights."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(
    recipe: Recipe, model: LlamaForCausalLM, data: torch.Tensor, on_step: Callable[[Step], None] = lambda _: None
) -> None:
    """Train the model in place, using each window once.

    Args:
        recipe: Batch size and learning rate.
        model: The model to train.
        data: Token windows, `[count, context + 1]`.
        on_step: Called after each step.
    """
    total = len(data) // recipe.batch
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(recipe.seed))
    optimizers = _optimizers(recipe, model)
    bfloat16 = has_bfloat16()
    model.train()
    for number in range(total):
        started = time.perf_counter()
        rows = data[order[number * recipe.batch : (number + 1) * recipe.batch]].long()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate(recipe, number, total)
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - started
        on_step(Step(number + 1, total, float(loss.detach()), rows[:, 1:].numel() / seconds))
    model.eval()


def has_bfloat16() -> bool:
    """Return whether this processor has bfloat16 instructions; without them bfloat16 is slower than float32."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def rate(recipe: Recipe, number: int, total: int) -> float:
    """Return the learning rate of a step (from 0) relative to the peak."""
    rise = max(1, int(recipe.warm_up * total))
    if number < rise:
        return (number + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (number - rise) / max(1, total - rise)))


def _optimizers(recipe: Recipe, model: LlamaForCausalLM) -> list[Any]:
    inner = [each for name, each in model.named_parameters() if each.ndim == 2 and "embed" not in name]
    known = {id(each) for each in inner}
    rest = [each for each in model.parameters() if id(each) not in known]
    return [
        Muon(inner, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0),
    ]
