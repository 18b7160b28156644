"""The contract: which requests are refused and with which field, and the answers of the other methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import violated_fields
from codealign.inference.engines.base import Engine
from codealign.inference.engines.transformers.engine import TransformersEngine

Connect = Callable[[Engine], AbstractAsyncContextManager[Any]]


@pytest.fixture
async def stub(engine: TransformersEngine, connect: Connect) -> AsyncIterator[Any]:
    async with connect(engine) as stub:
        yield stub


def valid(**changes: object) -> pb.GenerateRequest:
    fields: dict[str, object] = {
        "prompt": "def",
        "samples": [pb.Sample(attempt=1, seed=2)],
        "sampling": pb.SamplingParameters(max_tokens=2),
    }
    return pb.GenerateRequest(**{**fields, **changes})  # type: ignore[arg-type]


def sampling(**fields: object) -> pb.GenerateRequest:
    return valid(sampling=pb.SamplingParameters(**fields))  # type: ignore[arg-type]


def chat(*messages: tuple[str, str]) -> pb.GenerateRequest:
    turns = [pb.ChatMessage(role=role, content=content) for role, content in messages]
    return pb.GenerateRequest(chat=pb.ChatMessages(messages=turns), samples=[pb.Sample()])


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (valid(prompt=""), ["prompt"]),
        (pb.GenerateRequest(samples=[pb.Sample()]), ["prompt"]),
        (chat(), ["chat.messages"]),
        (chat(("user", "a"), ("robot", "b")), ["chat.messages[1].role"]),
        (valid(samples=[]), ["samples"]),
        (valid(samples=[pb.Sample(attempt=at) for at in range(257)]), ["samples"]),
        (valid(samples=[pb.Sample(attempt=1), pb.Sample(attempt=2), pb.Sample(attempt=1)]), ["samples[2].attempt"]),
        (sampling(temperature=-0.1), ["sampling.temperature"]),
        (sampling(temperature=2.1), ["sampling.temperature"]),
        (sampling(temperature=float("nan")), ["sampling.temperature"]),
        (sampling(top_p=1.1), ["sampling.top_p"]),
        (sampling(top_k=-1), ["sampling.top_k"]),
        (sampling(max_tokens=-1), ["sampling.max_tokens"]),
        (sampling(stop=["a"] * 17), ["sampling.stop"]),
        (sampling(stop=["a", ""]), ["sampling.stop[1]"]),
        (valid(prefix_chars=-1), ["prefix_chars"]),
        (sampling(top_k=-1, top_p=-1, temperature=3), ["sampling.temperature", "sampling.top_p", "sampling.top_k"]),
        (valid(prompt="def add " * 400), ["prompt"]),
        (chat(("user", "def add " * 400)), ["chat"]),
    ],
)
async def test_a_wrong_request_is_refused_with_its_fields(
    stub: Any, request_: pb.GenerateRequest, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(request_).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violated_fields(caught.value)) == fields


async def test_a_completion_comes_with_its_model(stub: Any) -> None:
    [model] = (await stub.ListModels(pb.ListModelsRequest())).models
    request = valid(model=model.name, expected_revision=model.revision)
    [response] = [one async for one in stub.Generate(request)]
    assert (response.model, response.revision) == (model.name, model.revision)
    assert (response.completion.attempt, response.completion.seed) == (1, 2)
    assert response.completion.finish_reason == pb.FINISH_REASON_LENGTH
    assert response.completion.seconds > 0


async def test_another_revision_or_model_is_refused(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="not 1234") as caught:
        await stub.Generate(valid(expected_revision="1234")).read()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    for call in (
        stub.Generate(valid(model="other")).read(),
        stub.GetModel(pb.GetModelRequest(name="other")),
        stub.CountTokens(pb.CountTokensRequest(model="other")),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="loaded: tiny") as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_tokens_are_counted_in_order(stub: Any, engine: TransformersEngine) -> None:
    texts = ["", "def add", "größer 你好", "def add" * 500]
    counts = (await stub.CountTokens(pb.CountTokensRequest(texts=texts))).counts
    tokenizer = engine._tokenizer
    assert list(counts) == [len(tokenizer(text)["input_ids"]) for text in texts]
    assert (await stub.CountTokens(pb.CountTokensRequest())).counts == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CountTokens(pb.CountTokensRequest(texts=["a"] * 1025))
    assert list(violated_fields(caught.value)) == ["texts"]
