"""Types that all engines share: requests, completions, model information and the `Engine` protocol.

This module does not import torch, so that the replay engine and users of these types start quickly.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


class FinishReason(enum.StrEnum):
    """Why a completion ended."""

    END_TOKEN = "end_token"  # noqa: S105  (a token of text)
    STOP_STRING = "stop_string"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    """The endpoint's filter or the model refused; the text is empty or cut."""
    TOOL_CALL = "tool_call"
    """The model called a tool instead of writing text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample to draw."""

    attempt: int
    """Returned unchanged with the completion; unique within a request."""
    seed: int
    """Unsigned 64-bit seed. Together with the prompt and the sampling parameters it determines the draw."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus mass in (0, 1]; 1 is off."""
    top_k: int = 0
    """0 is off."""
    max_tokens: int = 0
    """Maximum number of new tokens; 0: as many as fit in the context."""
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these strings."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Completions requested for one prompt."""

    prompt: str | tuple[ChatMessage, ...]
    """Text to continue as is, or a conversation for the model's chat template."""
    samples: tuple[Sample, ...]
    sampling: Sampling = field(default_factory=Sampling)
    prefix_key: str = ""
    """Hint: requests with equal keys share a prompt prefix."""
    prefix_chars: int = 0
    """Length of that prefix in characters; 0: unknown."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample's text and statistics."""

    attempt: int
    seed: int
    text: str
    """Without the stop string."""
    finish_reason: FinishReason
    stop_string: str
    """The stop string that ended the text. Empty: none, or the endpoint did not report which."""
    prompt_tokens: int
    cached_prompt_tokens: int | None
    """Prompt tokens that were not computed for this sample. None: unknown."""
    generated_tokens: int
    """New tokens, including the stop string's and the end token."""
    seconds: float
    """Seconds from the request's arrival to the last token, including waiting."""
    detail: str = ""
    """For CONTENT_FILTER and TOOL_CALL: the endpoint's explanation."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that an engine serves; the fields match the contract's `Model`."""

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
    base: str = ""
    """Model on whose engine this one is served as an adapter. Empty: it has its own engine."""
    unproved: str = ""
    """What keeps an engine that was asked to be batch-invariant from promising it."""


@dataclass(frozen=True, slots=True)
class Load:
    """An engine's current load; token counts are totals since its start."""

    running: int = 0
    waiting: int = 0
    slots: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    """Without prompts of which it is unknown."""
    generated_tokens: int = 0


@runtime_checkable
class Sleeper(Protocol):
    """An engine that may be able to give its memory back without ending."""

    @property
    def can_sleep(self) -> bool:
        """Whether it can."""

    async def sleep(self) -> None:
        """Give the memory back; completions in flight end with `Unavailable`.

        Raises:
            Exception: It failed, and the engine must be closed.
        """

    async def wake_up(self) -> None:
        """Take the memory again and serve.

        Raises:
            Exception: It failed, for example because others have the memory, and the engine must be closed.
        """


class Engine(Protocol):
    """A model that generates completions.

    Call all methods from one event loop. Errors are those of `codealign.common.errors`.
    """

    @property
    def model(self) -> ModelInfo:
        """The model that is served."""

    @property
    def fault(self) -> str:
        """Why the engine has failed for good, or empty while it works. A fault stops the server."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield one completion per sample, in order of completion.

        Closing the iterator stops generation and frees the slots.

        Raises:
            InvalidArgument: The prompt does not fit, or the request is a conversation and the model has no chat
                template.
            ResourceExhausted: The queue is full.
            Unavailable: The engine was closed or has failed.
            NotFound: (replay) A completion is not in the recording.
        """

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""

    def load(self) -> Load:
        """Return the current load."""

    async def close(self) -> None:
        """Stop the engine; completions in flight end with `Unavailable`."""
