"""Engine over vLLM's own gRPC server (`vllm.Inference`), which has the model already.

Prompts are tokenized here, so that text that looks like a special token stays text, and all engines tokenize alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from vllm_grpc import vllm_pb2 as pb

from codealign.common.clients import ClientTls
from codealign.common.errors import ConfigurationError, Unavailable
from codealign.common.logs import get_logger
from codealign.common.model_identity import tokenizer_revision
from codealign.inference.engines.base import Completion, GenerationRequest, Load, ModelInfo, Sample
from codealign.inference.engines.fanout import Fanout
from codealign.inference.engines.model_files import configuration, end_tokens
from codealign.inference.engines.prompts import Prompts, chat_template_of, load_tokenizer
from codealign.inference.engines.transformers.continuation import detokenizer
from codealign.inference.engines.vllm_grpc.answer import Expected, read_completion
from codealign.inference.engines.vllm_grpc.server import NoSuchModel, Served, VllmServer
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import TOKENIZER_FILES, SourceUnreachable, local_source, require_revision

log = get_logger(__name__)

_SEED_MASK = 2**63 - 1  # the protocol's seeds are signed
_TOP_K_OFF = 2**31 - 1
"""More than any vocabulary. 0 would be the model's own default, which some models set."""
_LOOK_AGAIN_SECONDS = 10.0
"""How long what the server said of its model is believed."""
_UNKNOWN_SLOTS = 64
_MOST_SLOTS = 2**16
"""More than any server decodes at once; one may say that it has no limit."""


def open_server(settings: InferenceSettings, model: str, name: str, expected_revision: str) -> VllmGrpcEngine:
    """Connect to the server and select one of its models. Blocks.

    Raises:
        ConfigurationError: The server does not serve the model, is not vLLM's, or the tokenizer cannot be used.
        SourceUnreachable: The server or the tokenizer's source does not respond.
        FailedPrecondition: The revision is not the expected one.
    """
    files = (settings.vllm_grpc_tls_ca_file, settings.vllm_grpc_tls_cert_file, settings.vllm_grpc_tls_key_file)
    server = VllmServer(settings.vllm_grpc_address, ClientTls(*files), settings.vllm_grpc_timeout)
    served = server.describe(model)
    folder = _tokenizer_folder(settings, server, served)
    tokenizer = load_tokenizer(folder)
    revision = served.revision(server.address, tokenizer_revision(folder, settings.cache_dir))
    require_revision(model, revision, expected_revision)
    info = ModelInfo(
        name=name or model,
        source=model,
        revision=revision,
        engine="vllm-grpc",
        context_length=min(filter(None, (served.context_length, settings.max_context))),
        chat_template=chat_template_of(tokenizer),
        batch_invariant=False,  # the server does not tell
        dtype="",
        device=server.address,
        size_bytes=0,
    )
    slots = settings.vllm_grpc_concurrency or min(served.running_requests, _MOST_SLOTS) or _UNKNOWN_SLOTS
    vocabulary = max(len(tokenizer), configuration(folder).get("vocab_size") or 0)
    log.info("vllm_found", address=server.address, model=model, version=served.version, slots=slots)
    return VllmGrpcEngine(
        server,
        served,
        info,
        settings,
        tokenizer=tokenizer,
        stops=end_tokens(folder, tokenizer),
        vocabulary=vocabulary,
        slots=slots,
    )


class VllmGrpcEngine:
    """An `Engine` over the server; sends one request per sample, since each sample has its own seed."""

    def __init__(
        self,
        server: VllmServer,
        served: Served,
        info: ModelInfo,
        settings: InferenceSettings,
        *,
        tokenizer: Any,
        stops: frozenset[int],
        vocabulary: int,
        slots: int,
    ) -> None:
        self._server = server
        self._served = served
        self._info = info
        self._salt = settings.vllm_grpc_cache_salt
        self._prompts = Prompts(tokenizer, info)
        self._text_of = detokenizer(tokenizer)
        self._end_tokens = stops
        self._vocabulary = vocabulary
        self._samples = Fanout(slots, settings.max_waiting)
        self._free = asyncio.Semaphore(slots)
        self._looked = time.monotonic()
        """When the last look at the server's model began that had an answer."""
        self._away: tuple[float, str] | None = None
        """When the last look began that had none, and why."""
        self._looking = asyncio.Lock()
        self._fault = ""

    @property
    def model(self) -> ModelInfo:
        """What is known about the server's model."""
        return self._info

    @property
    def fault(self) -> str:
        """Set when the server has another model. This process then restarts, and takes it under another revision."""
        return self._fault

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield completions as they finish; see `Engine.generate`."""
        arrival = time.perf_counter()
        ids, _ = await asyncio.to_thread(self._prompts.encode, request)
        limit = self._prompts.limit(request, len(ids))
        self._samples.require_room(request)
        await self._require_same_model(_LOOK_AGAIN_SECONDS)
        expected = Expected(
            request, ids, limit, self._end_tokens, self._vocabulary, self._text_of, self._server.address
        )
        field = "prompt" if isinstance(request.prompt, str) else "chat"

        async def write(sample: Sample, arrival: float) -> Completion:
            async with self._free:
                await self._require_same_model(_LOOK_AGAIN_SECONDS)  # It may have waited here for long.
                try:
                    answer = await self._server.generate(self._message(expected, sample), field)
                except (NoSuchModel, Unavailable) as error:
                    # A server that was away may have come back with another model. Until the next look it is sent
                    # nothing, since its answers would have the revision of the model before.
                    self._looked = float("-inf")
                    await self._require_same_model(0.0)
                    raise Unavailable(str(error), retry_after=_LOOK_AGAIN_SECONDS) from error
            if self._fault:
                raise self._restarts()
            return await asyncio.to_thread(read_completion, expected, sample, answer, arrival)

        async with contextlib.aclosing(self._samples.run(request, write, arrival)) as completions:
            async for completion in completions:
                yield completion

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        return await self._prompts.count(texts)

    def load(self) -> Load:
        """Return the load that this client causes; the server does not report its own over gRPC."""
        return self._samples.load()

    async def close(self) -> None:
        """Cancel samples in flight with `Unavailable`, tell the server to stop them, and close the connection."""
        await self._samples.close()
        await self._server.close()

    def _message(self, expected: Expected, sample: Sample) -> pb.GenerateRequest:
        sampling = expected.request.sampling
        adapter = bool(self._served.adapter)
        message = pb.GenerateRequest(
            request_id=f"codealign-{uuid.uuid4().hex}",  # other clients of the server have ids too
            model="" if adapter else self._served.name,
            lora_name=self._served.name if adapter else "",
            token_ids=pb.TokenIds(ids=expected.prompt_ids),
            temperature=sampling.temperature,
            # Everything is sent, because what is left out has the default in the model's generation_config.json.
            sampling=pb.RandomSampling(top_k=sampling.top_k or _TOP_K_OFF, top_p=sampling.top_p),
            decoding=pb.DecodingParameters(repetition_penalty=1.0),
            stopping=pb.StoppingCriteria(
                max_new_tokens=expected.limit,  # at least 1: 0 would mean 20
                stop_token_ids=sorted(self._end_tokens),
                stop_strings=sampling.stop,
                ignore_eos=True,  # the end tokens are named, so that they are the same as in the other engines
            ),
            response=pb.ResponseOptions(output_text=True, output_token_ids=True, skip_special_tokens=True),
        )
        if sampling.temperature > 0:
            message.sampling.seed = sample.seed & _SEED_MASK
        if self._salt:
            message.kv.cache_salt = self._salt
        return message

    async def _require_same_model(self, seconds: float) -> None:
        """Look at the server's model again if the last look is older than `seconds`.

        Raises:
            Unavailable: The server does not respond, or has another model.
        """
        asked = time.monotonic()
        async with self._looking:
            if self._away is not None and self._away[0] >= asked:
                # Another call has just waited for the server. If each did, one after the other, they would wait for
                # minutes.
                raise Unavailable(self._away[1], retry_after=_LOOK_AGAIN_SECONDS)
            if asked - self._looked > seconds and not self._fault:
                await self._look()
        if self._fault:
            raise self._restarts()

    def _restarts(self) -> Unavailable:
        return Unavailable(f"{self._fault}: this service restarts", retry_after=_LOOK_AGAIN_SECONDS)

    async def _look(self) -> None:
        name, began = self._served.name, time.monotonic()
        try:
            difference = self._served.difference(await self._server.describe_again(name))
        except SourceUnreachable as error:
            self._away = began, str(error)
            raise Unavailable(str(error), retry_after=_LOOK_AGAIN_SECONDS) from error
        except ConfigurationError as error:
            difference = str(error)
        if difference:
            self._fault = f"model {name} at {self._server.address} is another one than before: {difference}"
            log.error("model_changed", address=self._server.address, model=name, reason=difference)
        self._looked, self._away = began, None


def _tokenizer_folder(settings: InferenceSettings, server: VllmServer, served: Served) -> Any:
    source = settings.vllm_grpc_tokenizer or served.model_id
    try:
        return local_source(source, settings.cache_dir, TOKENIZER_FILES)
    except SourceUnreachable:
        raise
    except ConfigurationError as error:
        if settings.vllm_grpc_tokenizer:
            raise
        raise ConfigurationError(
            f"vLLM's server at {server.address} serves {served.model_id}, which is not here: set "
            f"CODEALIGN_INFERENCE_VLLM_GRPC_TOKENIZER to a directory or hub id with its tokenizer ({error})"
        ) from error
