"""A server of vLLM's gRPC contract, with a text instead of a model, that can also misbehave in every way.

It follows the contract's rules that clients get wrong: 0 new tokens are 20, an unknown name is NOT_FOUND, sampling
parameters that are left out have the model's defaults, and a dropped call goes on until it is aborted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from vllm_grpc import vllm_pb2 as pb
from vllm_grpc.vllm_pb2_grpc import (
    ControlServicer,
    InferenceServicer,
    add_ControlServicer_to_server,
    add_InferenceServicer_to_server,
)

Change = Callable[[pb.GenerateResponse], None]
Context = grpc.aio.ServicerContext[Any, Any]
LENGTH, STOP, ABORTED = pb.FinishInfo.LENGTH, pb.FinishInfo.STOP, pb.FinishInfo.ABORTED


class FakeVllm(InferenceServicer, ControlServicer):
    """Writes `text` for every prompt, and keeps what it was asked.

    Args:
        tokenizer: The model's tokenizer.
        end_token: What the model writes at the end of its text.
    """

    def __init__(self, tokenizer: Any, end_token: int) -> None:
        self.tokenizer, self.end_token = tokenizer, end_token
        self.text = "def add(a, b):\n    return a + b\n"
        self.names = ["base", "alias"]
        self.adapters: dict[str, str] = {}
        self.model_id = "some/model"
        self.context = 128
        self.asked: list[pb.GenerateRequest] = []
        self.running: dict[str, asyncio.Event] = {}
        self.aborted: list[str] = []
        self.change: Change = lambda _: None
        """Applied to every answer."""
        self.before: Callable[[Context], Awaitable[None]] | None = None
        """Runs before an answer; may end the call."""
        self.hangs = False

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.ServerInfo:
        return pb.ServerInfo(engine_version="0.32.0", max_model_len=self.context, max_running_requests=8)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Context) -> pb.ModelInfo:
        return pb.ModelInfo(
            model_id=self.model_id, served_model_name=self.names[0], served_model_aliases=self.names[1:]
        )

    async def ListLoras(self, request: pb.ListLorasRequest, context: Context) -> pb.ListLorasResponse:
        if not self.adapters:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "LoRA is not enabled")
        adapters = [pb.LoraAdapter(lora_name=name, source_path=path) for name, path in self.adapters.items()]
        return pb.ListLorasResponse(adapters=adapters)

    async def Abort(self, request: pb.AbortRequest, context: Context) -> pb.AbortResponse:
        for each in request.request_ids:
            self.aborted.append(each)
            if event := self.running.get(each):
                event.set()
        return pb.AbortResponse()

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        self.asked.append(request)
        if request.model and request.model not in self.names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"model `{request.model}` not found")
        if request.lora_name and request.lora_name not in self.adapters:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"LoRA adapter `{request.lora_name}` is not loaded")
        if self.before is not None:
            await self.before(context)
        if self.hangs:
            event = self.running[request.request_id] = asyncio.Event()
            # A dropped call does not stop the engine: only an abort does.
            await asyncio.shield(asyncio.ensure_future(event.wait()))
            return pb.GenerateResponse(outputs=pb.SequenceOutput(finish_info=pb.FinishInfo(finish_reason=ABORTED)))
        answer = self.write(request)
        self.change(answer)
        return answer

    def write(self, request: pb.GenerateRequest) -> pb.GenerateResponse:
        """Return the answer of a server that works."""
        limit = request.stopping.max_new_tokens or 20
        text = self.text
        if request.sampling.HasField("seed"):  # another text for each seed and prompt
            drawn = f"{request.sampling.seed} {list(request.token_ids.ids)}".encode()
            text = f"# {hashlib.sha256(drawn).hexdigest()[:8]}\n{text}"
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_token]
        taken: list[int] = []
        info = pb.FinishInfo(finish_reason=LENGTH)
        for token in ids[:limit]:
            taken.append(token)
            if token in request.stopping.stop_token_ids:
                info = pb.FinishInfo(finish_reason=STOP, stop_token_id=token)
                break
            if stop := next((one for one in request.stopping.stop_strings if one in self.decoded(taken)), ""):
                info = pb.FinishInfo(finish_reason=STOP, stop_string=stop)
                break
        written = self.decoded(taken)
        if info.stop_string:
            written = written[: written.index(info.stop_string)]
        info.num_output_tokens = len(taken)
        return pb.GenerateResponse(
            prompt_info=pb.PromptInfo(num_prompt_tokens=len(request.token_ids.ids)),
            outputs=pb.SequenceOutput(text=written, num_tokens=len(taken), token_ids=taken, finish_info=info),
        )

    def decoded(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


@asynccontextmanager
async def serving(fake: FakeVllm, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[str]:
    """Serve the contract on a free port; yields the address."""
    server = grpc.aio.server()
    add_InferenceServicer_to_server(fake, server)
    add_ControlServicer_to_server(fake, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield f"{'127.0.0.1' if credentials is None else 'localhost'}:{port}"
    finally:
        await server.stop(0)
