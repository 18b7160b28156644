"""Tokenizes text as data: text that looks like a special token stays ordinary characters.

A tokenizer turns "<|endoftext|>" into the token that ends a document wherever it occurs, even in a program that merely
mentions it. Here, only markers written by a chat template or the tokenizer itself become such tokens. Text without
markers has the same tokens as usual.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

Message = dict[str, str]
Render = Callable[[Sequence[Message]], str]
"""Converts messages to the text that a chat template produces."""

_NO_MARKER = re.compile(r"[\w\s▁.,']*|(.)\1*")
"""Added tokens that are pieces of ordinary text: a word, indentation, a ruler."""


class NotLiteral(ValueError):
    """The text cannot be separated from what the tokenizer or the template adds; the message says why."""


class Encoded(NamedTuple):
    """Tokens of a text."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Position of each token in the text."""


class LiteralText:
    """Encodes data and conversations with a tokenizer of `transformers`.

    Args:
        tokenizer: A complete tokenizer. Tokens added to it later are not recognized.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._markers = {
            token.content: int(number) for number, token in tokenizer.added_tokens_decoder.items() if is_marker(token)
        }
        self._numbers = frozenset(self._markers.values())
        self._blind: _Blind | None = None

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[Encoded]:
        """Encode texts that are entirely data.

        Args:
            texts: The texts.
            add_special_tokens: Whether to add the tokens that the tokenizer puts around every text.

        Raises:
            NotLiteral: A text contains a marker that this tokenizer can only read as a special token.
        """
        return [
            self._blinded().encode(text, add_special_tokens=add_special_tokens) if marked else encoded
            for text, (encoded, marked) in zip(texts, self._plain(texts, add_special_tokens), strict=True)
        ]

    def encode_conversations(self, conversations: Sequence[Sequence[Message]], render: Render) -> list[list[int]]:
        """Encode rendered conversations whose contents are data.

        Raises:
            NotLiteral: A content contains a marker, and the template does more with the content than strip it.
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
        """Encode a conversation with markers in the contents at the positions `marked`."""
        names = {f"data{secrets.token_hex(16)}": messages[position]["content"] for position in marked}
        stand_ins = dict(zip(marked, names, strict=True))
        template = render(
            [
                {**message, "content": stand_ins.get(position, message["content"])}
                for position, message in enumerate(messages)
            ]
        )
        blind = self._blinded()
        # The template's own markers must give the same tokens after the renaming.
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
            "a message contains the text of a special token, and the chat template modifies the message: its text "
            "cannot be separated from the template's"
        )

    def _plain(self, texts: Sequence[str], add_special_tokens: bool) -> list[tuple[Encoded, bool]]:
        """Return the tokenizer's own tokens, and for each text whether they include a marker from the text."""
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
    """A tokenizer whose markers have other names, which no text can contain, so that it ignores the known ones.

    The markers are renamed rather than removed, so that every other token keeps its number and the text between two
    markers of a template is read as before.
    """

    def __init__(self, tokenizer: Any, markers: Collection[str]) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
        if backend is None:
            raise NotLiteral(
                "the text contains the text of a special token; only a fast tokenizer (tokenizer.json) can read it as "
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
        """Replace the markers by their new names."""
        return self._pattern.sub(lambda match: self._names[match[0]], text)

    def _name(self, piece: str) -> str:
        return self._names.get(piece, piece)

    def _rename_pieces(self, model: dict[str, Any]) -> None:
        """Rename markers in the model too: some models list a whole marker among their pieces, or merge one."""
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
    """Return whether an added token stands for something other than its text.

    Args:
        token: A `tokenizers.AddedToken`. Special tokens and tags (`<tool_call>`) are markers. Words and indentation
            that a tokenizer keeps among its added tokens are not.
    """
    content: str = token.content
    if len(content) <= 1 or content.isspace():
        return False
    return bool(token.special) or _NO_MARKER.fullmatch(content) is None
