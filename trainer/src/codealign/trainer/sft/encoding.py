"""Convert rows to tokens, and select the tokens in the loss: the answer's and the end token.

The prompt is tokenized separately, as at inference, followed by the answer. Instruction and answer are data: text in
them that looks like a special token is trained on as plain text.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from codealign.common.literal_text import LiteralText, Message, NotLiteral
from codealign.trainer.sft.job import TrainingError
from codealign.trainer.sft.rows import Row
from codealign.trainer.sft.template import chat_template

IGNORED = -100
"""Label of tokens that are not in the loss (PyTorch's cross entropy)."""

# Tokens that published tokenizers reserve for padding.
_PAD_NAMES = ("<|pad|>", "<pad>", "[PAD]", "<|padding|>", "<|fim_pad|>", "<fim_pad>", "<|finetune_right_pad_id|>")
_NEW_PAD = "<|pad|>"
_PROBE = ("Say hello.", "Hello.")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of one row."""

    row: str
    """Id of the row."""
    input_ids: list[int]
    labels: list[int]
    """The input ids, with `IGNORED` for tokens that are not in the loss."""

    @property
    def trained(self) -> int:
        """Number of tokens in the loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class EncodedRows:
    """Tokens of a dataset."""

    rows: list[Encoded]
    truncated: int
    """Number of these rows that were truncated."""
    dropped: int
    """Number of rows that were dropped, since their prompt alone fills the maximum length."""

    def digest(self) -> str:
        """Return the sha256 of the tokens in their order, as 64 hexadecimal digits."""
        total = hashlib.sha256(b"codealign encoded rows 1\n")
        for row in self.rows:
            for numbers in (row.input_ids, row.labels):
                total.update(f"{len(numbers)}:".encode() + array("q", numbers).tobytes())
        return total.hexdigest()


def prepare_tokenizer(tokenizer: Any) -> list[str]:
    """Add what a base model's tokenizer lacks: a chat template, and a pad token other than the end token.

    Returns:
        Notes for users.

    Raises:
        TrainingError: The tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise TrainingError(
            f"the tokenizer of {tokenizer.name_or_path} has no end token, so answers could not end: set eos_token in "
            "its tokenizer_config.json"
        )
    notes = []
    if tokenizer.chat_template:
        notes.append("prompts use the base model's own chat template")
    else:
        begins = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        tokenizer.chat_template = chat_template(begins_with_bos=begins)
        notes.append("the base model has no chat template: CodeAlign's was added to its tokenizer")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        why = "has no pad token" if tokenizer.pad_token_id is None else "pads with its end token"
        vocabulary = tokenizer.get_vocab()
        known = [name for name in _PAD_NAMES if name in vocabulary]
        tokenizer.add_special_tokens({"pad_token": known[0] if known else _NEW_PAD})
        notes.append(f"the base model's tokenizer {why}: padding uses {tokenizer.pad_token} instead")
    return notes


def end_token(tokenizer: Any) -> int:
    """Return the token that ends an answer in the chat template, or else the tokenizer's end token."""
    question, answer = _PROBE
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # a template is an arbitrary program
        raise TrainingError(
            f"the chat template of {tokenizer.name_or_path} rejects a conversation of one question and one answer: "
            f"{error}"
        ) from error
    after = text[text.rindex(answer) + len(answer) :] if answer in text else ""
    following = tokenizer(after, add_special_tokens=False).input_ids if after else []
    if following and following[0] in tokenizer.all_special_ids:
        return int(following[0])
    # Some templates use end markers that the tokenizer does not list as special.
    if following and tokenizer.convert_ids_to_tokens(following[0]) in tokenizer.get_added_vocab():
        return int(following[0])
    return int(tokenizer.eos_token_id)


def encode(tokenizer: Any, rows: Sequence[Row], max_length: int) -> EncodedRows:
    """Tokenize rows.

    Args:
        tokenizer: The tokenizer, with template and pad token.
        rows: The rows to train on.
        max_length: Maximum number of tokens per row; longer rows are truncated.

    Raises:
        TrainingError: No row is left.
    """
    end = end_token(tokenizer)
    prompts, answers = _tokens(tokenizer, rows)
    kept: list[Encoded] = []
    truncated = dropped = 0
    for row, prompt, answer in zip(rows, prompts, answers, strict=True):
        ids = [*prompt, *answer, end]
        if len(prompt) >= max_length:
            dropped += 1
            continue
        truncated += len(ids) > max_length
        ids = ids[:max_length]
        kept.append(Encoded(row.id, ids, [*([IGNORED] * len(prompt)), *ids[len(prompt) :]]))
    if not kept:
        raise TrainingError(
            f"no row has any part of its answer within {max_length} tokens: raise spec.max_length (the shortest prompt "
            f"has {min(map(len, prompts))} tokens)"
        )
    return EncodedRows(kept, truncated, dropped)


def _tokens(tokenizer: Any, rows: Sequence[Row]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the tokens of the prompts and of the answers."""

    def render(messages: Sequence[Message]) -> str:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return text

    literal = LiteralText(tokenizer)
    try:
        prompts = literal.encode_conversations([[{"role": "user", "content": row.instruction}] for row in rows], render)
        answers = [encoded.ids for encoded in literal.encode([row.response for row in rows])]
    except NotLiteral as error:
        raise TrainingError(
            f"the rows cannot be encoded with the tokenizer of {tokenizer.name_or_path}: {error}"
        ) from error
    return prompts, answers
