"""Convert text or conversations to tokens, for every engine that has the model's tokenizer.

Prompts and messages are data: special tokens come from the tokenizer and the chat template only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codealign.common.errors import ConfigurationError, InvalidArgument
from codealign.common.literal_text import LiteralText, Message, NotLiteral
from codealign.inference.engines.base import ChatMessage, GenerationRequest, ModelInfo


class Prompts:
    """A model's tokenizer, chat template and context length."""

    def __init__(self, tokenizer: Any, model: ModelInfo) -> None:
        self._tokenizer = tokenizer
        self._literal = LiteralText(tokenizer)
        self._model = model

    def encode(self, request: GenerationRequest) -> tuple[list[int], int]:
        """Return the prompt's tokens and how many of them are in the announced prefix (0 for a conversation).

        Raises:
            InvalidArgument: The model has no chat template for a conversation, the template rejects it, or text that
                looks like a special token cannot be encoded as plain text.
        """
        try:
            if isinstance(request.prompt, str):
                [encoded] = self._literal.encode([request.prompt], add_special_tokens=True)
                return encoded.ids, sum(end <= request.prefix_chars for _, end in encoded.spans if request.prefix_chars)
            return self._conversation(request.prompt), 0
        except NotLiteral as error:
            raise InvalidArgument("prompt" if isinstance(request.prompt, str) else "chat", str(error)) from error

    def _conversation(self, turns: Sequence[ChatMessage]) -> list[int]:
        if not self._model.chat_template:
            raise InvalidArgument(
                "chat", f"model {self._model.name} has no chat template: send a prompt, or use a tuned model"
            )
        begun = turns[-1].role == "assistant"  # the beginning of an answer to continue

        def render(messages: Sequence[Message]) -> str:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=not begun, continue_final_message=begun
            )
            return text

        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            [ids] = self._literal.encode_conversations([messages], render)
        except NotLiteral:
            raise
        except Exception as error:  # a template may raise any error about the order or the roles of messages
            raise InvalidArgument("chat", f"the model's chat template rejects it: {error}") from error
        return ids

    def limit(self, request: GenerationRequest, prompt_tokens: int) -> int:
        """Return the maximum number of new tokens.

        Raises:
            InvalidArgument: The prompt is empty or leaves no room for a new token.
        """
        field = "prompt" if isinstance(request.prompt, str) else "chat"
        if prompt_tokens == 0:
            raise InvalidArgument(field, "is empty: there is nothing to continue")
        room = self._model.context_length - prompt_tokens
        if room < 1:
            raise InvalidArgument(
                field,
                f"has {prompt_tokens} tokens, but the model's context has {self._model.context_length} including at "
                "least one new token: shorten it",
            )
        return min(request.sampling.max_tokens or room, room)

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        if not texts:
            return []
        encoded = await asyncio.to_thread(self._literal.encode, list(texts))
        return [len(one.ids) for one in encoded]


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer.

    Raises:
        ConfigurationError: The tokenizer is missing, damaged or not supported.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # a missing or damaged file, an unknown class: many types
        raise ConfigurationError(
            f"{folder} has no usable tokenizer ({first_line(error)}): add tokenizer.json and tokenizer_config.json"
        ) from error
    if not tokenizer.is_fast or len(tokenizer) == 0:
        raise ConfigurationError(f"{folder} has no usable tokenizer: tokenizer.json is missing or empty")
    return tokenizer


def chat_template_of(tokenizer: Any) -> str:
    """Return the tokenizer's chat template, or an empty string."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template or ""


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, truncated."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
