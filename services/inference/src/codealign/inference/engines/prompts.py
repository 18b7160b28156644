"""From text or a conversation to tokens: the same for every engine that has the model's tokenizer.

Prompts and messages are data: the markers in the tokens are those that the tokenizer and the chat template write.
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
    """A model's tokenizer and chat template, and how much its context holds."""

    def __init__(self, tokenizer: Any, model: ModelInfo) -> None:
        """Encode for this model."""
        self._tokenizer = tokenizer
        self._literal = LiteralText(tokenizer)
        self._model = model

    def encode(self, request: GenerationRequest) -> tuple[list[int], int]:
        """The prompt's tokens, and how many of them lie within the announced prefix (0 for a conversation).

        Raises:
            InvalidArgument: a conversation came and there is no template, or the template refuses it; or text that
                looks like a special token cannot be kept apart.
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
        begun = turns[-1].role == "assistant"  # the answer's first words, to be continued

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
        except Exception as error:  # a template may raise anything about the messages' order or roles
            raise InvalidArgument("chat", f"the model's chat template refuses it: {error}") from error
        return ids

    def limit(self, request: GenerationRequest, prompt_tokens: int) -> int:
        """New tokens at most.

        Raises:
            InvalidArgument: the prompt leaves no room for a single one.
        """
        field = "prompt" if isinstance(request.prompt, str) else "chat"
        if prompt_tokens == 0:
            raise InvalidArgument(field, "is empty: there is nothing to continue")
        room = self._model.context_length - prompt_tokens
        if room < 1:
            raise InvalidArgument(
                field,
                f"has {prompt_tokens} tokens; the model's context holds {self._model.context_length} with at least one "
                "new token: shorten it",
            )
        return min(request.sampling.max_tokens or room, room)

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Each text's tokens, special tokens not added."""
        if not texts:
            return []
        encoded = await asyncio.to_thread(self._literal.encode, list(texts))
        return [len(one.ids) for one in encoded]


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer.

    Raises:
        ConfigurationError: it is missing, damaged or of a kind that is not served.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # a missing file, a damaged one, an unknown class: many types
        raise ConfigurationError(
            f"{folder} has no usable tokenizer ({first_line(error)}): tokenizer.json and tokenizer_config.json belong "
            "beside the weights"
        ) from error
    if not tokenizer.is_fast or len(tokenizer) == 0:
        raise ConfigurationError(f"{folder} has no usable tokenizer: tokenizer.json is missing or empty")
    return tokenizer


def chat_template_of(tokenizer: Any) -> str:
    """The tokenizer's chat template, or empty."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template or ""


def first_line(error: Exception) -> str:
    """What an error of another library says, cut to a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
