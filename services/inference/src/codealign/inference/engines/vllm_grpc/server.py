"""Client of vLLM's own gRPC server: what it serves, one call per completion, and its faults as our errors.

Nothing is sent twice: the caller has the deadline and decides on retries. A fault never becomes a completion.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from vllm_grpc import vllm_pb2 as pb
from vllm_grpc.vllm_pb2_grpc import ControlStub, InferenceStub

from codealign.common.clients import ClientTls, connect, connect_blocking
from codealign.common.errors import (
    CodeAlignError,
    ConfigurationError,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from codealign.common.logs import get_logger
from codealign.inference.sources import SourceUnreachable

if TYPE_CHECKING:  # the async stubs exist only as types
    from vllm_grpc.vllm_pb2_grpc import ControlAsyncStub, InferenceAsyncStub

log = get_logger(__name__)

_DESCRIBE_SECONDS = 10.0
_ABORT_SECONDS = 5.0
_RETRY_SECONDS = 5.0
_SHOWN_CHARS = 500
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED})
_NO_LORA = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED})


@dataclass(frozen=True, slots=True)
class Served:
    """A model of a server: its base model under one of its names, or a LoRA adapter."""

    name: str
    """What requests call it."""
    model_id: str
    """What the server was started with: a hub id or a directory on its machine."""
    adapter: str
    """The adapter's directory on the server's machine; empty: the base model."""
    context_length: int
    """Maximum tokens of prompt and completion together."""
    running_requests: int
    """Requests that the server decodes at once; 0: unknown."""
    version: str
    """vLLM's version."""

    def difference(self, now: Served) -> str:
        """Return why `now` is not the same model, or an empty string."""
        if (now.model_id, now.adapter) != (self.model_id, self.adapter):
            before, after = self.adapter or self.model_id, now.adapter or now.model_id
            return f"it was {before} and is {after}"
        if now.context_length < self.context_length:
            return f"its context had {self.context_length} tokens and has {now.context_length}"
        return ""

    def revision(self, address: str, tokenizer: str) -> str:
        """Return a hash of what is known: the address, the model's name and origin there, and the tokenizer.

        Different weights under the same name and origin go unnoticed: the server does not tell.
        """
        known = {"address": address, "name": self.name, "model_id": self.model_id, "adapter": self.adapter}
        text = json.dumps({**known, "tokenizer": tokenizer}, sort_keys=True)
        return hashlib.sha256(f"codealign vllm-grpc 1\n{text}".encode()).hexdigest()


class NoSuchModel(ConfigurationError):
    """The server answers but does not serve the model."""


class VllmServer:
    """A server's address; connections open on first use.

    Args:
        address: host:port.
        tls: If it has files, the connection is encrypted.
        timeout: Timeout for a completion, in seconds.
    """

    def __init__(self, address: str, tls: ClientTls, timeout: float) -> None:
        self.address = address
        self._tls = tls
        self._timeout = timeout
        self._channel: grpc.aio.Channel | None = None
        self._aborts: set[asyncio.Task[None]] = set()

    def describe(self, name: str) -> Served:
        """Return a model of the server. Blocks.

        Raises:
            NoSuchModel: The server does not serve it; the message has the names that it serves.
            ConfigurationError: The server is not vLLM's.
            SourceUnreachable: The server does not respond.
        """
        with connect_blocking(self.address, self._tls) as channel:
            control = ControlStub(channel)
            try:
                info = control.GetServerInfo(pb.GetServerInfoRequest(), timeout=_DESCRIBE_SECONDS)
                model = control.GetModelInfo(pb.GetModelInfoRequest(), timeout=_DESCRIBE_SECONDS)
                loras = _adapters(lambda: control.ListLoras(pb.ListLorasRequest(), timeout=_DESCRIBE_SECONDS))
            except grpc.RpcError as error:
                raise self._unusable(error) from error
        return self._select(name, info, model, loras)

    async def describe_again(self, name: str) -> Served:
        """Return the same without blocking.

        Raises:
            NoSuchModel: As for `describe`.
            ConfigurationError: The server is not vLLM's.
            SourceUnreachable: The server does not respond.
        """
        control = self._control()
        try:
            info = await control.GetServerInfo(pb.GetServerInfoRequest(), timeout=_DESCRIBE_SECONDS)
            model = await control.GetModelInfo(pb.GetModelInfoRequest(), timeout=_DESCRIBE_SECONDS)
            try:
                loras = await control.ListLoras(pb.ListLorasRequest(), timeout=_DESCRIBE_SECONDS)
            except grpc.RpcError as error:
                loras = _none_if_without_lora(error)
        except grpc.RpcError as error:
            raise self._unusable(error) from error
        return self._select(name, info, model, loras)

    async def generate(self, request: pb.GenerateRequest, field: str) -> pb.GenerateResponse:
        """Send a request once. If the call is cancelled or times out, the server is told to stop.

        Args:
            request: The request, with an id.
            field: The field of our request that a refusal refers to.

        Raises:
            InvalidArgument: The server refused the request.
            NoSuchModel: The server no longer serves the model.
            ResourceExhausted: The server is full.
            Unavailable: The server is away or stopped the request.
            DeadlineExceeded: The server did not answer in time.
            Internal: The server failed, or its answer cannot be read.
        """
        stub: InferenceAsyncStub = InferenceStub(self._connected())
        finished = False
        try:
            response = await stub.Generate(request, timeout=self._timeout)
            finished = True
            return response
        except grpc.RpcError as error:
            finished = error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            raise self._fault(error, field) from error
        finally:
            if not finished:
                self._abort(request.request_id)

    async def close(self) -> None:
        """Wait for aborts that are being sent, and close the connection."""
        if self._aborts:
            await asyncio.gather(*self._aborts, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    def _abort(self, request_id: str) -> None:
        """Tell the server to stop a request. It runs on its own, since the caller is being cancelled."""
        task = asyncio.ensure_future(self._send_abort(request_id))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _send_abort(self, request_id: str) -> None:
        try:
            await self._control().Abort(pb.AbortRequest(request_ids=[request_id]), timeout=_ABORT_SECONDS)
        except grpc.RpcError as error:  # the request then ends at its max_new_tokens
            log.warning("abort_failed", address=self.address, request=request_id, reason=_said(error))

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = connect(self.address, self._tls)
        return self._channel

    def _control(self) -> ControlAsyncStub:
        stub: ControlAsyncStub = ControlStub(self._connected())
        return stub

    def _select(self, name: str, info: pb.ServerInfo, model: pb.ModelInfo, loras: pb.ListLorasResponse) -> Served:
        names = [model.served_model_name, *model.served_model_aliases]
        adapters = {adapter.lora_name: adapter.source_path for adapter in loras.adapters}
        if name not in names and name not in adapters:
            there = ", ".join([*filter(None, names), *sorted(adapters)]) or "none"
            raise NoSuchModel(
                f"vLLM's server at {self.address} does not serve model {name}; it serves: {there}. It loads no models "
                "on request: start it with the model, or choose a name that it serves"
            )
        if not info.max_model_len:
            raise ConfigurationError(
                f"the server at {self.address} reports no context length: it is not vLLM's gRPC server, or older than "
                "0.27"
            )
        adapter = "" if name in names else adapters[name] or name
        return Served(name, model.model_id, adapter, info.max_model_len, info.max_running_requests, info.engine_version)

    def _unusable(self, error: grpc.RpcError) -> ConfigurationError:
        code, said = _code(error), _said(error)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return ConfigurationError(
                f"the server at {self.address} does not implement vllm.Control ({said}): give the port of --grpc-port "
                "of vLLM 0.27 or later, started with VLLM_USE_RUST_FRONTEND=1"
            )
        if code is grpc.StatusCode.INTERNAL:
            return ConfigurationError(f"the server at {self.address} is not vLLM's gRPC server ({said})")
        return SourceUnreachable(
            f"vLLM's gRPC server at {self.address} does not respond ({code.name}: {said}): check that it runs, the "
            "address (CODEALIGN_INFERENCE_VLLM_GRPC_ADDRESS) and TLS"
        )

    def _fault(self, error: grpc.RpcError, field: str) -> CodeAlignError | ConfigurationError:
        code, said = _code(error), _said(error)
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidArgument(field, f"vLLM's server at {self.address} refuses the request: {said}")
        if code is grpc.StatusCode.NOT_FOUND:
            return NoSuchModel(f"vLLM's server at {self.address} no longer serves the model ({said}): serve it again")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ResourceExhausted(f"vLLM's server at {self.address} is full: {said}", retry_after=_RETRY_SECONDS)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(
                f"vLLM's server at {self.address} did not answer within {self._timeout:g} s "
                "(CODEALIGN_INFERENCE_VLLM_GRPC_TIMEOUT); it was told to stop, and the request is not sent again"
            )
        if code in _AWAY:
            return Unavailable(
                f"vLLM's server at {self.address} cannot be reached or is stopping ({said}): start it again",
                retry_after=_RETRY_SECONDS,
            )
        return Internal(f"vLLM's server at {self.address} failed ({code.name}: {said}): see its log")


def _adapters(ask: Any) -> pb.ListLorasResponse:
    try:
        answer: pb.ListLorasResponse = ask()
    except grpc.RpcError as error:
        return _none_if_without_lora(error)
    return answer


def _none_if_without_lora(error: grpc.RpcError) -> pb.ListLorasResponse:
    if _code(error) in _NO_LORA:
        return pb.ListLorasResponse()
    raise error


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code: grpc.StatusCode = error.code()
    return code


def _said(error: grpc.RpcError) -> str:
    return " ".join((error.details() or "").split())[:_SHOWN_CHARS] or "no message"
