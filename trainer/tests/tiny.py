"""Tiny models and datasets for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codealign.trainer.sft.job import Job

CORPUS = [
    "def add(a, b):\n    return a + b\n",
    "def reverse(text):\n    return text[::-1]\n",
    "Write a function that adds two numbers.\n```python\nassert add(1, 2) == 3\n```\n",
    "You help people write programs\n### Instruction\n### Response\n",
    "größer 你好 for item in items: print(item)\n",
]
END = "<|end|>"


def make_model(folder: Path, *, seed: int = 0, layers: int = 2, special: Sequence[str] = (), **tokenizer: Any) -> Path:
    """Create a random Llama (hidden size 64) with a byte-level BPE.

    Args:
        folder: Target folder.
        seed: Seed of the weights.
        layers: Number of layers.
        special: Special tokens besides the end token.
        tokenizer: `chat_template`, `pad_token`, ...
    """
    # Imported here, since unit tests use the rest of this file.
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[END, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS * 4, learner)
    template = tokenizer.pop("chat_template", None)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, **tokenizer)
    if template:
        fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=0,
        bos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def rows(count: int, words: int = 3) -> list[dict[str, str]]:
    """Return rows of different lengths."""
    return [
        {
            "id": f"row-{number:03}",
            "instruction": f"Write a function that adds {number} to a number." + " Please." * (number % words),
            "response": f"```python\ndef add_{number}(a):\n    return a + {number}\n```\n" * (1 + number % words),
            "tests": f"assert add_{number}(1) == {number + 1}",
        }
        for number in range(count)
    ]


def make_dataset(folder: Path, count: int = 20, *, table: Sequence[dict[str, Any]] | None = None) -> Path:
    """Create a published version's folder: data/train-….parquet."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    given = rows(count) if table is None else list(table)
    schema = pa.schema([(name, pa.string()) for name in ("id", "instruction", "response", "tests")])
    content = pa.Table.from_pylist(given, schema=schema if table is None or not given else None)
    pq.write_table(content, folder / "data" / "train-00000-of-00001.parquet")
    return folder


def make_job(model: Path, dataset: Path, output: Path, **changes: Any) -> Job:
    """Return a job of a few steps."""
    settings: dict[str, Any] = {
        "training_id": "t" * 32,
        "model": model,
        "model_name": "tiny",
        "model_revision": "0" * 64,
        "dataset": str(dataset),
        "dataset_name": "v-tiny",
        "output": output,
        "learning_rate": 1e-3,
        "batch_size": 4,
        "micro_batch_size": 2,
        "epochs": 2,
        "max_length": 128,
        "checkpoint_steps": 3,
        "threads": 1,
    }
    return Job(**{**settings, **changes})
