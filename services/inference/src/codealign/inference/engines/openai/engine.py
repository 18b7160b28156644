"""Engine for OpenAI-compatible endpoints: vLLM's server, llama.cpp or a provider.

A prompt is a text to continue, which /completions does. An endpoint that only chats is asked to do so in a system
message; what comes back is as exact a continuation as its model makes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

from codealign.common.errors import Internal, InvalidArgument, Unimplemented
from codealign.common.logs import get_logger
from codealign.inference.engines.base import ChatMessage, Completion, GenerationRequest, Load, ModelInfo, Sample
from codealign.inference.engines.fanout import Fanout
from codealign.inference.engines.openai.answer import read_completion, refused
from codealign.inference.engines.openai.endpoint import Endpoint, Filtered, Json, endpoint_revision
from codealign.inference.engines.openai.passthrough import EndpointMetrics
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import require_revision

log = get_logger(__name__)

_SEED_MASK = 2**63 - 1  # the protocol's seeds are signed
CONTINUE = (
    "Continue the user's text exactly from where it ends. Answer with the continuation alone: do not repeat the text, "
    "and add no introduction, comment or formatting that is not part of it."
)
"""System message that asks a chat endpoint to continue a prompt. Another text makes other completions, so it is part of
the model's revision."""
ENDPOINTS_TEMPLATE = "(the endpoint's own)"
"""Reported as the chat template, which the protocol does not expose; conversations are accepted."""


def open_endpoint(settings: InferenceSettings, model: str, name: str, expected_revision: str) -> OpenAIEngine:
    """Connect to the endpoint and select one of its models. Blocks.

    Raises:
        ConfigurationError: The endpoint does not have the model, or rejects the key.
        SourceUnreachable: The endpoint does not respond.
        FailedPrecondition: The endpoint's revision is not the expected one.
    """
    endpoint = Endpoint(
        settings.openai_base_url,
        settings.openai_api_key.get_secret_value(),
        settings.openai_timeout,
        settings.openai_concurrency,
    )
    entry = endpoint.describe(model)
    chats = settings.openai_api == "chat"
    revision = endpoint_revision(endpoint.base_url, model, entry, system=CONTINUE if chats else "")
    require_revision(model, revision, expected_revision)
    said = entry.get("max_model_len")
    own_context = said if isinstance(said, int) and said > 0 else None
    context = min(filter(None, (own_context, settings.max_context)), default=0)
    info = ModelInfo(
        name=name or model,
        source=model,
        revision=revision,
        engine="openai",
        context_length=context,
        chat_template=ENDPOINTS_TEMPLATE,
        batch_invariant=False,
        dtype="",
        device=endpoint.base_url,
        size_bytes=0,
    )
    counts = endpoint.offers_tokenize(model)
    log.info("endpoint_found", base_url=endpoint.base_url, model=model, context=context, counts_tokens=counts)
    return OpenAIEngine(endpoint, info, settings, EndpointMetrics.join(endpoint), counts_tokens=counts)


class OpenAIEngine:
    """An `Engine` over an endpoint; sends one request per sample, since each sample has its own seed."""

    def __init__(
        self,
        endpoint: Endpoint,
        info: ModelInfo,
        settings: InferenceSettings,
        own_metrics: EndpointMetrics | None,
        *,
        counts_tokens: bool,
    ) -> None:
        self._endpoint = endpoint
        self._info = info
        self._counts_tokens = counts_tokens
        self._chats = settings.openai_api == "chat"
        self._samples = Fanout(settings.openai_concurrency, settings.max_waiting)
        self._own_metrics = own_metrics
        self._session_header = settings.openai_session_header

    @property
    def model(self) -> ModelInfo:
        """What is known about the endpoint's model."""
        return self._info

    @property
    def fault(self) -> str:
        """Always empty: an unreachable endpoint may come back."""
        return ""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield completions as they finish; see `Engine.generate`."""
        arrival = time.perf_counter()
        self._samples.require_room(request)
        body = await self._body(request)
        path = "/chat/completions" if "messages" in body else "/completions"
        field = "prompt" if isinstance(request.prompt, str) else "chat"
        headers = self._headers(request)

        async def write(sample: Sample, arrival: float) -> Completion:
            try:
                answer = await self._endpoint.post(path, {**body, "seed": sample.seed & _SEED_MASK}, field, headers)
                return read_completion(request, sample, answer, arrival)
            except Filtered as error:
                return refused(sample, str(error), arrival)

        async with contextlib.aclosing(self._samples.run(request, write, arrival)) as completions:
            async for completion in completions:
                yield completion

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens with the endpoint, one request per text.

        Raises:
            Unimplemented: The endpoint cannot count tokens; only vLLM's server can.
        """
        if not self._counts_tokens:
            raise Unimplemented(
                f"{self._endpoint.base_url} has no /tokenize: count with a server that has the model's tokenizer"
            )
        return list(await asyncio.gather(*(self._count(text) for text in texts)))

    def load(self) -> Load:
        """Return the load; every request in flight counts."""
        return self._samples.load()

    async def close(self) -> None:
        """Cancel requests in flight with `Unavailable` and close the connections."""
        if self._own_metrics is not None:
            self._own_metrics.leave()
            self._own_metrics = None
        await self._samples.close()
        await self._endpoint.close()

    async def _count(self, text: str) -> int:
        body = {"model": self._info.source, "prompt": text, "add_special_tokens": False}
        return await self._tokens(body, "texts")

    async def _tokens(self, body: Json, field: str) -> int:
        url = self._endpoint.tokenize_url
        try:
            count = (await self._endpoint.post(url, body, field)).get("count")
        except Filtered as error:
            raise InvalidArgument(field, str(error)) from error
        if not isinstance(count, int) or count < 0:
            raise Internal(f"{url} returned no number of tokens in `count`: {str(count)[:100]}")
        return count

    def _headers(self, request: GenerationRequest) -> Mapping[str, str]:
        """Return the header by which a router keeps prompts with the same prefix on one replica."""
        if not self._session_header or not request.prefix_key:
            return {}
        # Callers choose keys freely, a header's value must be ASCII.
        return {self._session_header: hashlib.sha256(request.prefix_key.encode()).hexdigest()[:32]}

    async def _body(self, request: GenerationRequest) -> Json:
        sampling = request.sampling
        body: Json = {"model": self._info.source, "temperature": sampling.temperature, "top_p": sampling.top_p}
        if isinstance(request.prompt, str) and not self._chats:
            body["prompt"] = request.prompt
            body["max_tokens"] = sampling.max_tokens or await self._room(request.prompt)
        else:
            messages = _asking(request.prompt) if isinstance(request.prompt, str) else request.prompt
            body["messages"] = [{"role": one.role, "content": one.content} for one in messages]
            if messages[-1].role == "assistant":
                # Continue the assistant's message. The protocol has no field for that; these are vLLM's, and an
                # endpoint that ignores them starts a new answer.
                body |= {"continue_final_message": True, "add_generation_prompt": False}
            if sampling.max_tokens:  # without it the endpoint chooses a chat answer's length
                body["max_tokens"] = sampling.max_tokens
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.top_k:  # vLLM's extension: other endpoints reject or ignore it
            body["top_k"] = sampling.top_k
        return body

    async def _room(self, prompt: str) -> int:
        """Return how many new tokens fit in the context; without a limit the protocol's default is 16."""
        if not (self._counts_tokens and self._info.context_length):
            raise InvalidArgument(
                "sampling.max_tokens", "is 0, but this endpoint does not report how many tokens fit: set a limit"
            )
        body = {"model": self._info.source, "prompt": prompt}
        tokens = await self._tokens(body, "prompt")
        room = self._info.context_length - tokens
        if room < 1:
            raise InvalidArgument(
                "prompt",
                f"has {tokens} tokens, but the model's context has {self._info.context_length} including at least "
                "one new token: shorten it",
            )
        return room


def _asking(prompt: str) -> Sequence[ChatMessage]:
    """Return the conversation that asks for a prompt's continuation."""
    return ChatMessage("system", CONTINUE), ChatMessage("user", prompt)
