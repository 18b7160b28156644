"""A completion's text as its tokens arrive, and the end of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from codealign.inference.engines.stops import first_stop

# Tokenizers of the SentencePiece family write a leading space according to what came before: a few of the prompt's
# tokens in front make the continuation's text what it is in context.
_CONTEXT_TOKENS = 6
_INCOMPLETE = "\ufffd"  # what the decoder writes for the bytes of a character that is not whole yet
_KEPT_TEXTS = 2**16

Detokenize = Callable[[tuple[int, ...]], str]


def detokenizer(tokenizer: Any) -> Detokenize:
    """Return the tokenizer's decoding of a few tokens, with a memory: the same pairs of tokens come all the time."""

    @lru_cache(maxsize=_KEPT_TEXTS)
    def text_of(ids: tuple[int, ...]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    return text_of


class Continuation:
    """Detokenizes one token at a time and looks for the stop strings."""

    def __init__(self, text_of: Detokenize, prompt_ids: Sequence[int], stop: Sequence[str]) -> None:
        """Begin after the prompt."""
        self._text_of = text_of
        self._ids = list(prompt_ids[-_CONTEXT_TOKENS:])
        self._window = 0
        self._read = len(self._ids)
        self._stop = [text for text in stop if text]
        self._longest_stop = max((len(text) for text in self._stop), default=0)
        self.text = ""
        """The text so far; after a stop, without the stop string."""
        self.stop_string = ""
        """The stop string that was reached, or empty."""

    def push(self, token: int) -> bool:
        """Add a token; True if the text now has reached a stop string."""
        self._ids.append(token)
        before = self._text_of(tuple(self._ids[self._window : self._read]))
        after = self._text_of(tuple(self._ids[self._window :]))
        if len(after) <= len(before) or after.endswith(_INCOMPLETE):
            return False
        self._window, self._read = self._read, len(self._ids)
        return self._append(after[len(before) :])

    def finish(self) -> bool:
        """Process the withheld bytes of an incomplete character; return whether they complete a stop string."""
        before = self._text_of(tuple(self._ids[self._window : self._read]))
        after = self._text_of(tuple(self._ids[self._window :]))
        self._window = self._read = len(self._ids)
        return self._append(after[len(before) :])

    def _append(self, text: str) -> bool:
        searched = max(0, len(self.text) - self._longest_stop + 1)
        self.text += text
        found = first_stop(self.text, self._stop, searched)
        if found is None:
            return False
        at, self.stop_string = found
        self.text = self.text[:at]
        return True
