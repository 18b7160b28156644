"""Slots, the queue, cancellation and faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import Internal, ResourceExhausted, Unavailable, retry_delay
from codealign.inference.engines.base import Engine, GenerationRequest, Load, Sample, Sampling
from codealign.inference.engines.transformers.engine import TransformersEngine
from codealign.inference.engines.transformers.loading import LoadedModel
from codealign.inference.engines.transformers.options import EngineOptions

Connect = Callable[[Engine], AbstractAsyncContextManager[Any]]
Started = Callable[..., AbstractAsyncContextManager[TransformersEngine]]
LONG = Sampling(temperature=1.0, max_tokens=240)


@pytest.fixture
def started(loaded: LoadedModel, options: EngineOptions) -> Started:
    """Start an engine with other options; without an end token, so that every completion runs to its limit."""

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[TransformersEngine]:
        engine = TransformersEngine(replace(loaded, end_tokens=frozenset()), replace(options, **changes))
        try:
            yield engine
        finally:
            await engine.close()

    return start


async def until(engine: TransformersEngine, condition: Callable[[Load], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition(engine.load()):
        assert time.monotonic() < deadline, engine.load()
        await asyncio.sleep(0.002)


def request(samples: int, sampling: Sampling = LONG, prompt: str = "def") -> GenerationRequest:
    return GenerationRequest(prompt, tuple(Sample(at, at) for at in range(samples)), sampling)


def wire(samples: int, max_tokens: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        prompt="def",
        samples=[pb.Sample(attempt=at, seed=at) for at in range(samples)],
        sampling=pb.SamplingParameters(temperature=1.0, max_tokens=max_tokens),
    )


async def drained(engine: TransformersEngine, wanted: GenerationRequest) -> int:
    return len([completion async for completion in engine.generate(wanted)])


async def test_more_samples_than_slots_all_finish(started: Started) -> None:
    async with started(slots=3) as engine:
        counts = await asyncio.gather(*(drained(engine, request(5, replace(LONG, max_tokens=9))) for _ in range(4)))
        assert counts == [5] * 4
        assert engine.load() == replace(engine.load(), running=0, waiting=0, slots=3, generated_tokens=180)


async def test_rows_start_only_where_memory_for_their_longest_is_free(started: Started, loaded: LoadedModel) -> None:
    bytes_for_two = 2 * 250 * loaded.bytes_per_token
    async with started(kv_cache_bytes=bytes_for_two) as engine:
        job = asyncio.create_task(drained(engine, request(4)))
        await until(engine, lambda load: load.running > 0)
        assert engine.load().running == 2
        assert await job == 4


async def test_cancelling_the_call_frees_its_slots_and_its_place_in_the_queue(
    started: Started, connect: Connect
) -> None:
    async with started(slots=2) as engine, connect(engine) as stub:
        running = stub.Generate(wire(2, 240))
        waiting = stub.Generate(wire(8, 240))
        reader = asyncio.ensure_future(running.read())
        reader_of_waiting = asyncio.ensure_future(waiting.read())
        await until(engine, lambda load: load.running == 2 and load.waiting == 8)
        waiting.cancel()
        await until(engine, lambda load: load.waiting == 0)
        running.cancel()
        await until(engine, lambda load: load.running == 0)
        for call in (reader, reader_of_waiting):
            with pytest.raises(asyncio.CancelledError):
                await call
        # Both slots are usable again.
        assert await drained(engine, request(2, replace(LONG, max_tokens=4))) == 2


async def test_a_deadline_frees_the_slots_too(started: Started, connect: Connect) -> None:
    async with started() as engine, connect(engine) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Generate(wire(64, 240), timeout=0.3):
                pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(engine, lambda load: load.running == load.waiting == 0)


async def test_a_full_queue_is_refused_with_a_delay(started: Started, connect: Connect) -> None:
    async with started(slots=1, max_waiting=4) as engine, connect(engine) as stub:
        job = asyncio.create_task(drained(engine, request(4)))
        await until(engine, lambda load: load.running == 1)
        with pytest.raises(ResourceExhausted, match="3 samples are waiting and 2 more would exceed the limit of 4"):
            await drained(engine, request(2))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(wire(2, 1)).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (retry_delay(caught.value) or 0) >= 1
        job.cancel()


async def test_stopping_ends_what_is_in_flight(started: Started) -> None:
    async with started(slots=1) as engine:
        job = asyncio.create_task(drained(engine, request(3)))
        await until(engine, lambda load: load.running == 1)
        await engine.close()
        with pytest.raises(Unavailable):
            await job
        with pytest.raises(Unavailable):
            await drained(engine, request(1))


async def test_a_fault_of_the_model_fails_its_calls_alone(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started() as engine:
        decoder = engine._workers[0]._decoder
        working = decoder.decode

        def broken(*_: object) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr(decoder, "decode", broken)
        with pytest.raises(Internal, match="the model failed: RuntimeError: DefaultCPUAllocator"):
            await drained(engine, request(2))
        monkeypatch.setattr(decoder, "decode", working)
        assert await drained(engine, request(2, replace(LONG, max_tokens=4))) == 2


async def test_an_idle_engine_gives_its_batch_cache_back(started: Started) -> None:
    async with started(idle_cache_bytes=0) as engine:
        await drained(engine, request(2, replace(LONG, max_tokens=4)))
        await until(engine, lambda _: engine._workers[0]._batch.size_bytes == 0)


def test_defaults_are_the_settings_defaults() -> None:
    from codealign.inference.settings import InferenceSettings

    settings = InferenceSettings()
    options = EngineOptions()
    shared = ["slots", "prefill_chunk", "kv_cache_bytes", "prefix_cache_bytes", "max_waiting", "max_context"]
    assert [getattr(options, name) for name in shared] == [getattr(settings, name) for name in shared]
