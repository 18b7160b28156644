"""What every engine speaks: requests, completions, the model that is served, and the protocol itself.

Nothing here imports torch, so that the replay engine and the clients of these types start in no time.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class FinishReason(enum.StrEnum):
    """Why a completion ended."""

    END_TOKEN = "end_token"  # noqa: S105  (a token of text)
    STOP_STRING = "stop_string"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    """An endpoint's filter, or the model, refused: the text is empty or cut."""
    TOOL_CALL = "tool_call"
    """The model called a tool instead of writing text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One draw."""

    attempt: int
    """Returned unchanged with the completion; unique within a request."""
    seed: int
    """Unsigned 64 bits. With the prompt and the sampling it determines the draw."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus mass in (0, 1]; 1 is off."""
    top_k: int = 0
    """0 is off."""
    max_tokens: int = 0
    """New tokens at most; 0 is as many as the context has room for."""
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Completions wanted of one prompt."""

    prompt: str | tuple[ChatMessage, ...]
    """Text that is continued as it is, or a conversation for the model's chat template."""
    samples: tuple[Sample, ...]
    sampling: Sampling = field(default_factory=Sampling)
    prefix_key: str = ""
    """Requests with equal keys share a prompt prefix: a hint."""
    prefix_chars: int = 0
    """The length of that prefix; 0 is unknown."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample's text, with what it took."""

    attempt: int
    seed: int
    text: str
    """Without the stop string."""
    finish_reason: FinishReason
    stop_string: str
    """The stop string that was reached. Empty: none, or an endpoint did not tell which."""
    prompt_tokens: int
    cached_prompt_tokens: int
    """Of the prompt's tokens, those that were not computed for this sample."""
    generated_tokens: int
    """New tokens, the stop string's and the end token included."""
    seconds: float
    """From the request's arrival to the last token, waiting included."""
    detail: str = ""
    """Of CONTENT_FILTER and TOOL_CALL: what the endpoint said."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that an engine serves; the fields are those of the contract's `Model`."""

    name: str
    source: str
    revision: str
    engine: str
    context_length: int
    chat_template: str
    batch_invariant: bool
    dtype: str
    device: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine is doing now; token counts are since its start."""

    running: int = 0
    waiting: int = 0
    slots: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0


class Engine(Protocol):
    """A model that writes completions.

    Methods are called from one event loop. Errors are those of `codealign.common.errors`.
    """

    @property
    def model(self) -> ModelInfo:
        """The model that is served."""

    @property
    def fault(self) -> str:
        """Why this engine will never answer again; empty while it works. The server ends itself over it."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield one completion per sample, in the order in which they finish.

        Closing the iterator stops the work and frees its slots.

        Raises:
            InvalidArgument: the prompt does not fit, or a conversation came and there is no chat template.
            ResourceExhausted: the queue is full.
            Unavailable: the engine was closed, or has a fault.
            NotFound: (replay) no such completion was recorded.
        """

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens, special tokens not added."""

    def load(self) -> Load:
        """Say what the engine is doing now."""

    async def close(self) -> None:
        """Stop; completions in flight end with `Unavailable`."""
