"""Tokenizing text that is data: what looks like a special token in it stays the characters that it is.

A tokenizer turns "<|endoftext|>" into the token that ends a document wherever the text holds it, also inside a program
that merely mentions it. Here only the markers that a chat template or the tokenizer itself writes become such tokens.
Text without markers has the same tokens as always.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

Message = dict[str, str]
Render = Callable[[Sequence[Message]], str]
"""From messages to the text that a chat template makes of them."""

_NO_MARKER = re.compile(r"[\w\s▁.,']*|(.)\1*")
"""Added tokens that are pieces of ordinary text: a word, indentation, a ruler."""


class NotLiteral(ValueError):
    """The text cannot be told from what the tokenizer or the template adds; the message says why."""


class Encoded(NamedTuple):
    """A text's tokens."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Where each token lies in the text."""


class LiteralText:
    """Encodes data and conversations with a tokenizer of `transformers`.

    Args:
        tokenizer: The tokenizer, complete: tokens added to it later are not known here.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._markers = {
            token.content: int(number) for number, token in tokenizer.added_tokens_decoder.items() if is_marker(token)
        }
        self._numbers = frozenset(self._markers.values())
        self._blind: _Blind | None = None

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[Encoded]:
        """Tokens of texts that are data throughout.

        Args:
            texts: The texts.
            add_special_tokens: Add what the tokenizer puts around every text.

        Raises:
            NotLiteral: A text holds a marker, and this tokenizer can only read it as one.
        """
        return [
            self._blinded().encode(text, add_special_tokens=add_special_tokens) if marked else encoded
            for text, (encoded, marked) in zip(texts, self._plain(texts, add_special_tokens), strict=True)
        ]

    def encode_conversations(self, conversations: Sequence[Sequence[Message]], render: Render) -> list[list[int]]:
        """Tokens of rendered conversations, whose contents are data.

        Raises:
            NotLiteral: A content holds a marker, and the template does more with it than to strip it.
        """
        contents = [message["content"] for messages in conversations for message in messages]
        marked = iter([found for _, found in self._plain(contents, False)])
        rendered = self._plain([render(messages) for messages in conversations], False)
        found = []
        for messages, (encoded, _) in zip(conversations, rendered, strict=True):
            positions = {position for position, _ in enumerate(messages) if next(marked)}
            found.append(self._conversation(messages, positions, render) if positions else encoded.ids)
        return found

    def _conversation(self, messages: Sequence[Message], marked: Collection[int], render: Render) -> list[int]:
        """Tokens of a conversation with markers in the contents at these positions."""
        names = {f"data{secrets.token_hex(16)}": messages[position]["content"] for position in marked}
        stand_ins = dict(zip(marked, names, strict=True))
        template = render(
            [
                {**message, "content": stand_ins.get(position, message["content"])}
                for position, message in enumerate(messages)
            ]
        )
        blind = self._blinded()
        # The template's own markers must come out as before once their names are changed.
        if blind.encode(blind.rename(template)).ids != self._plain([template], False)[0][0].ids:
            raise NotLiteral("the tokenizer reads the chat template's markers differently under other names")
        parts = re.split(f"({'|'.join(names)})", template)
        text = render(messages)
        for change in (str, str.strip, str.rstrip, str.lstrip):
            filled = [change(names[part]) if part in names else part for part in parts]
            if "".join(filled) == text:
                renamed = [
                    part if original in names else blind.rename(part)
                    for original, part in zip(parts, filled, strict=True)
                ]
                return blind.encode("".join(renamed)).ids
        raise NotLiteral(
            "a message holds the text of a special token, and the chat template changes the message: its text cannot "
            "be told from the template's"
        )

    def _plain(self, texts: Sequence[str], add_special_tokens: bool) -> list[tuple[Encoded, bool]]:
        """The tokenizer's own tokens, and whether a marker is among those of the text."""
        if not texts:
            return []
        fast = bool(self._tokenizer.is_fast)
        answer = self._tokenizer(
            list(texts),
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_special_tokens_mask=True,
            return_offsets_mapping=fast,
            verbose=False,
        )
        found = []
        for at, ids in enumerate(answer["input_ids"]):
            added = answer["special_tokens_mask"][at] if add_special_tokens else [0] * len(ids)
            marked = any(number in self._numbers and not mask for number, mask in zip(ids, added, strict=True))
            found.append((Encoded(ids, answer["offset_mapping"][at] if fast else []), marked))
        return found

    def _blinded(self) -> _Blind:
        if self._blind is None:
            self._blind = _Blind(self._tokenizer, self._markers)
        return self._blind


class _Blind:
    """The tokenizer with other names for its markers, which no text can hold: it is blind to the known ones.

    Renamed and not removed, so that every other token keeps its number and everything between two markers of a template
    is read as before.
    """

    def __init__(self, tokenizer: Any, markers: Collection[str]) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
        if backend is None:
            raise NotLiteral(
                "the text holds the text of a special token, which only a fast tokenizer (tokenizer.json) can read as "
                "plain text"
            )
        secret = secrets.token_hex(16)
        self._names = {marker: f"<|{secret}{number}|>" for number, marker in enumerate(sorted(markers))}
        longest_first = sorted(map(re.escape, markers), key=len, reverse=True)
        self._pattern = re.compile("|".join(longest_first))
        definition = json.loads(backend.to_str())
        definition |= {"truncation": None, "padding": None}
        for token in definition["added_tokens"]:
            token["content"] = self._name(token["content"])
        self._rename_pieces(definition["model"])
        self._backend = type(backend).from_str(json.dumps(definition))

    def encode(self, text: str, *, add_special_tokens: bool = False) -> Encoded:
        encoded = self._backend.encode(text, add_special_tokens=add_special_tokens)
        return Encoded(encoded.ids, encoded.offsets)

    def rename(self, text: str) -> str:
        """The text with the markers' new names."""
        return self._pattern.sub(lambda match: self._names[match[0]], text)

    def _name(self, piece: str) -> str:
        return self._names.get(piece, piece)

    def _rename_pieces(self, model: dict[str, Any]) -> None:
        """In the model as well: some find a whole marker among their pieces, or merge one."""
        vocabulary = model["vocab"]
        if isinstance(vocabulary, dict):
            model["vocab"] = {self._name(piece): number for piece, number in vocabulary.items()}
        else:
            model["vocab"] = [[self._name(piece), *rest] for piece, *rest in vocabulary]
        if model.get("unk_token") is not None:
            model["unk_token"] = self._name(model["unk_token"])
        if "merges" in model:
            prefix = model.get("continuing_subword_prefix") or ""
            model["merges"] = [
                [left, right]
                for left, right in model["merges"]
                if not {left, right, left + right.removeprefix(prefix)} & self._names.keys()
            ]


def is_marker(token: Any) -> bool:
    """Whether an added token stands for something else than its text.

    Args:
        token: A `tokenizers.AddedToken`. A special one is a marker, and so is a tag (`<tool_call>`); a word or
            indentation that a tokenizer keeps among its added tokens is not.
    """
    content: str = token.content
    if len(content) <= 1 or content.isspace():
        return False
    return bool(token.special) or _NO_MARKER.fullmatch(content) is None
