"""Several models in one server: loading, finding and unloading them, and their memory."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
import transformers

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import (
    InferenceServiceStub,
    add_InferenceServiceServicer_to_server,
)
from codealign.common.errors import retry_delay, violated_fields
from codealign.common.interceptors import ServerInterceptor
from codealign.inference import engine_opener
from codealign.inference.engine_opener import EngineOpener
from codealign.inference.engines.base import Engine
from codealign.inference.engines.transformers import loading
from codealign.inference.registry import ModelRegistry
from codealign.inference.servicer import InferenceServicer
from codealign.inference.settings import InferenceSettings

Serve = Callable[..., Any]
SAMPLING = pb.SamplingParameters(temperature=1, max_tokens=8)
LONG = pb.SamplingParameters(temperature=1, max_tokens=240)


@pytest.fixture
def serve(cache_folder: Path) -> Serve:
    """A server without a model, over real gRPC."""

    @asynccontextmanager
    async def served(**settings: Any) -> AsyncIterator[Any]:
        defaults: dict[str, Any] = {"slots": 4, "threads": 1, "kv_cache_bytes": 2**26, "prefix_cache_bytes": 2**22}
        models = ModelRegistry(EngineOpener(InferenceSettings(cache_dir=cache_folder, **{**defaults, **settings})))
        server = grpc.aio.server(interceptors=[ServerInterceptor(60)])
        add_InferenceServiceServicer_to_server(InferenceServicer(models), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield InferenceServiceStub(channel)
        finally:
            await server.stop(0)
            await models.close()

    return served


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "other", seed=5)


def generate(model: str = "", sampling: pb.SamplingParameters = SAMPLING, samples: int = 2) -> pb.GenerateRequest:
    wanted = [pb.Sample(attempt=at, seed=at) for at in range(samples)]
    return pb.GenerateRequest(model=model, prompt="def add", samples=wanted, sampling=sampling)


async def load(stub: Any, source: object, name: str = "", revision: str = "") -> Any:
    request = pb.LoadModelRequest(source=str(source), name=name, expected_revision=revision)
    return (await stub.LoadModel(request)).model


async def names(stub: Any) -> list[str]:
    return [model.name for model in (await stub.ListModels(pb.ListModelsRequest())).models]


def resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def refused(code: grpc.StatusCode, message: str) -> AsyncIterator[None]:
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        yield
    assert caught.value.code() is code, caught.value.details()


async def test_models_are_found_by_name(serve: Serve, model_folder: Path, other_folder: Path) -> None:
    async with serve() as stub:
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "no model is loaded: load one with LoadModel"):
            await stub.Generate(generate()).read()
        tiny = await load(stub, model_folder)
        [alone] = [one async for one in stub.Generate(generate(samples=1))]
        other = await load(stub, f"file://{other_folder}", "second")
        assert (tiny.name, other.name) == ("tiny", "second")
        assert tiny.revision != other.revision
        assert await names(stub) == ["tiny", "second"]
        answers = [[one async for one in stub.Generate(generate(name))] for name in ("tiny", "second")]
        assert [answer[0].revision for answer in answers] == [tiny.revision, other.revision]
        assert alone.completion.text in {one.completion.text for one in answers[0]}
        for field, call in (
            ("model", stub.Generate(generate()).read()),
            ("name", stub.GetModel(pb.GetModelRequest())),
            ("model", stub.CountTokens(pb.CountTokensRequest(texts=["a"]))),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="2 models are loaded: name one; loaded: second, tiny") as e:
                await call
            assert (e.value.code(), violated_fields(e.value)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
        load_ = await stub.GetLoad(pb.GetLoadRequest())
        assert (load_.slots, load_.generated_tokens) == (8, 5 * 8)
        await stub.UnloadModel(pb.UnloadModelRequest(name="second"))
        assert (await stub.GetLoad(pb.GetLoadRequest())).generated_tokens == 5 * 8
        assert (await stub.GetModel(pb.GetModelRequest())).model.name == "tiny"


async def test_loading_again_answers_with_what_is_loaded(serve: Serve, model_folder: Path) -> None:
    async with serve() as stub:
        first = await load(stub, model_folder, "base")
        for source in (f"{model_folder}/", model_folder.parent / "." / model_folder.name, f"file://{model_folder}"):
            assert (await load(stub, source, "base")) == first
        assert (await load(stub, model_folder)) == first  # without a name: the existing one
        assert await names(stub) == ["base"]


async def test_two_at_the_same_time_load_once(
    serve: Serve, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_engine = engine_opener.open_engine

    def counted(settings: InferenceSettings, source: str, name: str, revision: str) -> Engine:
        opened.append(name)
        return open_engine(settings, source, name, revision)

    monkeypatch.setattr(engine_opener, "open_engine", counted)
    async with serve() as stub:
        loading = [asyncio.create_task(load(stub, model_folder)) for _ in range(3)]
        given_up = asyncio.create_task(load(stub, model_folder))
        await asyncio.sleep(0.01)
        given_up.cancel()
        assert len({model.revision for model in await asyncio.gather(*loading)}) == 1
        assert opened == ["tiny"]


async def test_a_model_that_is_being_loaded_is_announced(
    serve: Serve, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()
    loop = asyncio.get_running_loop()
    load_model = loading.load_model

    def slow(*arguments: Any, **more: Any) -> Any:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return load_model(*arguments, **more)

    monkeypatch.setattr(loading, "load_model", slow)
    async with serve() as stub:
        task = asyncio.create_task(load(stub, model_folder))
        while True:  # the event loop stays responsive
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetModel(pb.GetModelRequest(name="tiny"))
            if caught.value.code() is grpc.StatusCode.UNAVAILABLE:
                break
        assert "tiny is loading" in str(caught.value.details())
        assert retry_delay(caught.value)
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "in use by"):
            await load(stub, model_folder.parent, "tiny")
        unloading = asyncio.ensure_future(stub.UnloadModel(pb.UnloadModelRequest(name="tiny")))
        go.set()
        assert (await task).name == "tiny"
        await unloading
        assert await names(stub) == []


async def test_a_name_belongs_to_one_source(serve: Serve, model_folder: Path, other_folder: Path) -> None:
    async with serve() as stub:
        await load(stub, model_folder, "m")
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, f"name m is in use by {model_folder}: unload"):
            await load(stub, other_folder, "m")
        assert await names(stub) == ["m"]


async def test_another_revision_is_not_loaded(
    serve: Serve, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as stub:
        with monkeypatch.context() as patch:
            patch.setattr(loading, "_weights", lambda *_: pytest.fail("the weights were read"))
            async with refused(grpc.StatusCode.FAILED_PRECONDITION, "not 1234, and was not loaded"):
                await load(stub, model_folder, revision="1234")
        assert await names(stub) == []
        revision = (await load(stub, model_folder)).revision
        assert (await load(stub, model_folder, revision=revision)).revision == revision
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, f"at revision {revision}, not 1234: unload it"):
            await load(stub, model_folder, revision="1234")
        assert await names(stub) == ["tiny"]


async def test_what_cannot_be_loaded_says_why(
    serve: Serve, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as stub:
        for source, message in (
            (tmp_path / "none", "does not exist: give a folder or a hub id"),
            (f"file://{tmp_path}/none", "does not exist"),
            (tmp_path, "has no config.json"),
            ("nosuchkind://a/b", "unsupported URL scheme"),
            ("", "source: is missing"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
                await load(stub, source)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert violated_fields(caught.value) == ["source"]
        monkeypatch.setattr(loading, "available_memory", lambda: 10**8)
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, r"needs about 0\.6 GB .* 0\.1 GB are free"):
            await load(stub, model_folder)
        assert await names(stub) == []


async def test_unloading_what_is_not_there_names_what_is(serve: Serve, model_folder: Path) -> None:
    async with serve() as stub:
        async with refused(grpc.StatusCode.NOT_FOUND, "model x is not loaded; no model is loaded"):
            await stub.UnloadModel(pb.UnloadModelRequest(name="x"))
        await load(stub, model_folder)
        async with refused(grpc.StatusCode.NOT_FOUND, "model x is not loaded; loaded: tiny"):
            await stub.UnloadModel(pb.UnloadModelRequest(name="x"))
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "name: is missing"):
            await stub.UnloadModel(pb.UnloadModelRequest())


async def test_unloading_ends_calls_in_flight_and_frees_the_model(
    serve: Serve, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Any]] = []
    load_model = loading.load_model

    def watched(*arguments: Any, **more: Any) -> Any:
        loaded = load_model(*arguments, **more)
        alive.append(weakref.ref(loaded.model))
        return loaded

    monkeypatch.setattr(loading, "load_model", watched)
    async with serve(slots=1) as stub:
        for _ in range(2):
            await load(stub, model_folder)
            calls = [asyncio.ensure_future(stub.Generate(generate(sampling=LONG)).read()) for _ in range(2)]
            while (await stub.GetLoad(pb.GetLoadRequest())).running == 0:
                pass
            await stub.UnloadModel(pb.UnloadModelRequest(name="tiny"))
            assert alive[-1]() is None
            for call in calls:
                async with refused(grpc.StatusCode.UNAVAILABLE, "the engine"):
                    await call
                    await call
            async with refused(grpc.StatusCode.NOT_FOUND, "no model is loaded"):
                await stub.Generate(generate("tiny")).read()
    gc.collect()


async def test_unloading_gives_the_memory_back(serve: Serve, tmp_path: Path, model_folder: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=340, hidden_size=1024, intermediate_size=4096, num_hidden_layers=6, num_attention_heads=8
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "large")
    transformers.AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path / "large")
    gc.collect()
    torch.empty(1)
    async with serve() as stub:
        after = []
        for _ in range(4):
            before = resident()
            size = (await load(stub, tmp_path / "large")).size_bytes
            assert size > 400e6
            await stub.Generate(generate()).read()
            assert resident() - before > 0.8 * size
            await stub.UnloadModel(pb.UnloadModelRequest(name="large"))
            after.append(resident())
        # The first load maps the libraries' pages, which stay. The allocator's arenas vary by more than half the model
        # on a busy machine, so no single reading decides: memory that is never returned accumulates over all of them.
        assert min(after[1:]) - after[0] < 0.5 * size


async def test_recordings_are_loaded_as_models(serve: Serve, tmp_path: Path, model_folder: Path) -> None:
    recording = tmp_path / "run.jsonl"
    async with serve(record=recording) as stub:
        model = await load(stub, model_folder, "base")
        first = [one async for one in stub.Generate(generate())]
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "a recording is of one model: unload the loaded"):
            await load(stub, tmp_path, "tuned")
        await stub.UnloadModel(pb.UnloadModelRequest(name="base"))
        assert (await load(stub, model_folder, "base")).revision == model.revision
        again = [one async for one in stub.Generate(generate())]
    by_attempt = [sorted(answer, key=lambda one: one.completion.attempt) for answer in (first, again)]
    assert by_attempt[0] == by_attempt[1]
    async with serve(engine="replay") as stub:
        assert (await load(stub, recording)).name == "base"
        assert (await load(stub, recording)).revision == model.revision
        assert (await load(stub, recording, "copy")).name == "copy"
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "not 1234"):
            await load(stub, recording, "third", revision="1234")
        assert await names(stub) == ["base", "copy"]
        assert [one async for one in stub.Generate(generate("base"))] == by_attempt[0]


async def test_a_recording_refuses_another_model(
    serve: Serve, tmp_path: Path, model_folder: Path, other_folder: Path
) -> None:
    async with serve(record=tmp_path / "run.jsonl") as stub:
        await load(stub, model_folder)
        await stub.UnloadModel(pb.UnloadModelRequest(name="tiny"))
        async with refused(grpc.StatusCode.FAILED_PRECONDITION, "record to another file"):
            await load(stub, other_folder)
        assert await names(stub) == []
