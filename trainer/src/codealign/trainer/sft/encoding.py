"""From rows to tokens: what the model sees, and which tokens are in the loss (the answer's and the end token).

The prompt is tokenized by itself, as it is when the tuned model is asked, and the answer after it. Instruction and
answer are data: what looks like a special token in them is trained on as plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from codealign.common.literal_text import LiteralText, Message, NotLiteral
from codealign.trainer.sft.job import TrainingError
from codealign.trainer.sft.rows import Row
from codealign.trainer.sft.template import chat_template

IGNORED = -100
"""The label of a token that is not in the loss (PyTorch's cross entropy)."""

# Tokens that published tokenizers keep for padding.
_PAD_NAMES = ("<|pad|>", "<pad>", "[PAD]", "<|padding|>", "<|fim_pad|>", "<fim_pad>", "<|finetune_right_pad_id|>")
_NEW_PAD = "<|pad|>"
_PROBE = ("Say hello.", "Hello.")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row's tokens."""

    row: str
    """The row's id."""
    input_ids: list[int]
    labels: list[int]
    """The same with `IGNORED` for what is not in the loss."""

    @property
    def trained(self) -> int:
        """Tokens in the loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class EncodedRows:
    """A dataset's tokens."""

    rows: list[Encoded]
    truncated: int
    """Of these, the ones that were cut."""
    dropped: int
    """Rows whose prompt alone fills the length: nothing of the answer was left."""


def prepare_tokenizer(tokenizer: Any) -> list[str]:
    """Install what a base model's tokenizer lacks: a chat template, and a pad token that is not the end token.

    Returns:
        What was done, for people.

    Raises:
        TrainingError: It has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise TrainingError(
            f"the tokenizer of {tokenizer.name_or_path} has no end token, so an answer could not end: set eos_token in "
            "its tokenizer_config.json"
        )
    notes = []
    if tokenizer.chat_template:
        notes.append("the base model's own chat template is used for prompts")
    else:
        begins = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        tokenizer.chat_template = chat_template(begins_with_bos=begins)
        notes.append("the base model has no chat template: CodeAlign's was installed in its tokenizer")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        why = "has no pad token" if tokenizer.pad_token_id is None else "pads with its end token"
        vocabulary = tokenizer.get_vocab()
        known = [name for name in _PAD_NAMES if name in vocabulary]
        tokenizer.add_special_tokens({"pad_token": known[0] if known else _NEW_PAD})
        notes.append(f"the base model's tokenizer {why}: {tokenizer.pad_token} pads instead")
    return notes


def end_token(tokenizer: Any) -> int:
    """The token that ends an answer in the tokenizer's chat template; the end token where it names none."""
    question, answer = _PROBE
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # a template is a program that people write
        raise TrainingError(
            f"the chat template of {tokenizer.name_or_path} refuses a conversation of one question and one answer: "
            f"{error}"
        ) from error
    after = text[text.rindex(answer) + len(answer) :] if answer in text else ""
    following = tokenizer(after, add_special_tokens=False).input_ids if after else []
    if following and following[0] in tokenizer.all_special_ids:
        return int(following[0])
    # Templates exist that write end markers which the tokenizer does not list as special.
    if following and tokenizer.convert_ids_to_tokens(following[0]) in tokenizer.get_added_vocab():
        return int(following[0])
    return int(tokenizer.eos_token_id)


def encode(tokenizer: Any, rows: Sequence[Row], max_length: int) -> EncodedRows:
    """Tokenize rows.

    Args:
        tokenizer: With template and pad token.
        rows: What to train on.
        max_length: Tokens of a row; what goes beyond is cut.

    Raises:
        TrainingError: Nothing to train on is left.
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
            f"no row has anything of its answer within {max_length} tokens: raise spec.max_length (the prompts alone "
            f"have {min(map(len, prompts))} tokens and more)"
        )
    return EncodedRows(kept, truncated, dropped)


def _tokens(tokenizer: Any, rows: Sequence[Row]) -> tuple[list[list[int]], list[list[int]]]:
    """What stands before the answers, and the answers."""

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
