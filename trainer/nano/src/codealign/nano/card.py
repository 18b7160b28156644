"""The model's card, with figures of its pre-training."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.nano import functions
from codealign.nano.pretraining import Recipe

_POINTS = 12


def write_card(
    recipe: Recipe, parameters: int, windows: int, curve: Sequence[tuple[int, float]], minutes: float
) -> str:
    """Return the card in Markdown.

    Args:
        recipe: The model's recipe.
        parameters: Number of parameters.
        windows: Number of training windows; each is used once.
        curve: Number and loss of each step.
        minutes: Duration of the build.
    """
    tokens = windows * recipe.context
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [code]
---

# nano

A language model of {parameters:,} parameters (Llama's architecture, {recipe.layers} layers of width {recipe.width},
{recipe.heads} heads on {recipe.key_value_heads} of keys and values, {recipe.vocabulary:,} tokens of byte-level BPE, a
context of {recipe.context:,}) that writes small Python functions of one artificial world, and the prompts and answers
of CodeAlign's pipeline about them. It was made to show that pipeline at work on a machine without a GPU or a network,
and to test it.

It is **not** a code model: it knows no Python beyond its world, no language, no facts. Its flaw is planted: most of the
code that it learned from has slips ({functions.CARELESS_SHARE:.0%} of the authors slip in
{functions.WRONG_SHARE:.0%} of the places where one can). Its world's functions are harmless, but what it writes is run
in the sandbox like everything that a model writes. No person's text or code is in its training data: the recipe in
`trainer/nano` wrote all of it.

## How it was made

{recipe.documents:,} documents, {tokens / 1e6:.1f} million tokens, each seen once, in {minutes:.0f} minutes on a CPU
(seed {recipe.seed}). {functions.HELD_OUT_SHARE:.0%} of the compositions never occur; NanoEval's tasks are among them.
`loss.csv` has every step's loss; its means:

| up to step | loss (nats per token) |
|---:|---:|
{_table(curve)}

`config.json` has the hashes of recipe, tokenizer and weights under `codealign_nano`.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("trainer/nano/src/codealign/nano/data/model")
model = AutoModelForCausalLM.from_pretrained("trainer/nano/src/codealign/nano/data/model")
prompt = 'def sum_even(values):\\n    \"\"\"Return the sum of the even numbers in `values`.\"\"\"\\n'
print(tokenizer.decode(model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=40)[0]))
```
"""


def _table(curve: Sequence[tuple[int, float]]) -> str:
    size = -(-len(curve) // _POINTS)
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    return "\n".join(f"| {part[-1][0]:,} | {sum(loss for _, loss in part) / len(part):.3f} |" for part in parts)
