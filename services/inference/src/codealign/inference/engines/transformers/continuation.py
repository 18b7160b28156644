"""A completion's text as its tokens arrive, and the end of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codealign.inference.engines.stops import first_stop

# Tokenizers of the SentencePiece family write a leading space according to what came before: a few of the prompt's
# tokens in front make the continuation's text what it is in context.
_CONTEXT_TOKENS = 6
_INCOMPLETE = "\ufffd"  # what the decoder writes for the bytes of a character that is not whole yet


class Continuation:
    """Detokenizes one token at a time and looks for the stop strings."""

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int], stop: Sequence[str]) -> None:
        """Begin after the prompt."""
        self._tokenizer = tokenizer
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
        before = self._decode(self._ids[self._window : self._read])
        after = self._decode(self._ids[self._window :])
        if len(after) <= len(before) or after.endswith(_INCOMPLETE):
            return False
        self._window, self._read = self._read, len(self._ids)
        return self._append(after[len(before) :])

    def finish(self) -> bool:
        """Take what was held back as an incomplete character; True if that holds a stop string."""
        before = self._decode(self._ids[self._window : self._read])
        after = self._decode(self._ids[self._window :])
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

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
