"""Streams abandoned by their caller: nothing stays open, whenever it happens."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from codealign.api.dataset.v1 import dataset_pb2 as wire
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.common.health import Readiness
from codealign.common.interceptors import ServerInterceptor
from codealign.dataset.publishing import publisher
from codealign.dataset.service import build
from codealign.dataset.settings import DatasetSettings
from codealign.dataset.workers import Workers
from services.dataset.tests.conftest import Make


class Source:
    """A blocking generator that waits in the middle and records whether it was closed."""

    def __init__(self) -> None:
        self.waits, self.goes_on, self.closed = threading.Event(), threading.Event(), threading.Event()

    def items(self) -> Iterator[int]:
        try:
            yield 1
            self.waits.set()
            assert self.goes_on.wait(30)
            yield 2
        finally:
            self.closed.set()


async def finished(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, 30)


async def test_a_stream_that_is_left_between_two_items_is_closed() -> None:
    workers, source = Workers(readers=1, writers=1), Source()
    async with contextlib.aclosing(workers.stream(source.items())) as stream:
        assert await anext(stream) == 1
    assert source.closed.is_set()
    await asyncio.to_thread(workers.close)


async def test_a_stream_that_is_cancelled_while_an_item_is_made_is_closed_after_it() -> None:
    workers, source = Workers(readers=2, writers=1), Source()

    async def draw() -> None:
        async with contextlib.aclosing(workers.stream(source.items())) as stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(draw())
    assert await finished(source.waits)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not source.closed.is_set()
    source.goes_on.set()
    assert await finished(source.closed)
    await asyncio.to_thread(workers.close)


async def test_a_stream_that_is_cancelled_before_its_turn_is_closed() -> None:
    workers, busy, waiting = Workers(readers=1, writers=1), Source(), Source()
    first = workers.stream(busy.items())
    assert await anext(first) == 1
    holding = asyncio.create_task(anext(first))
    assert await finished(busy.waits)
    second = workers.stream(waiting.items())
    task = asyncio.create_task(anext(second))
    await asyncio.sleep(0)
    task.cancel()
    busy.goes_on.set()
    assert await holding == 2
    with pytest.raises(asyncio.CancelledError):
        await task
    await first.aclose()
    assert busy.closed.is_set()
    assert not waiting.waits.is_set()
    await asyncio.to_thread(workers.close)


async def test_a_fault_while_an_item_is_made_is_the_streams() -> None:
    workers = Workers(readers=1, writers=1)

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        _ = [item async for item in workers.stream(broken())]
    await asyncio.to_thread(workers.close)


def open_files(folder: Path) -> list[str]:
    """Return this process's open files in a folder."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(str(folder))]


@pytest.mark.parametrize("form", [wire.EXPORT_FORMAT_JSONL, wire.EXPORT_FORMAT_PARQUET])
async def test_cancelled_exports_leave_no_file_open(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, form: wire.ExportFormat.ValueType
) -> None:
    monkeypatch.setattr(publisher, "_EXPORT_BYTES", 64)
    settings = DatasetSettings(data_dir=tmp_path / "data")
    server = grpc.aio.server(interceptors=[ServerInterceptor(60.0)])
    async with build(settings, Readiness()) as registrations:
        for registration in registrations:
            registration.add(registration.servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = DatasetServiceStub(channel)
            await stub.Append(wire.AppendRequest(records=make.chains(20), collection="run"))
            published = await stub.PublishVersion(wire.PublishVersionRequest(collection="run"))
            request = wire.ExportRequest(version=published.version.name, format=form)
            for number in range(60):
                call = stub.Export(request)
                for _ in range(number % 4):
                    await call.read()
                if number % 3:
                    await asyncio.sleep(0.001 * (number % 5))
                call.cancel()
            # The last calls may not have reached the server yet. When this one is answered, they have.
            assert b"".join([piece.data async for piece in stub.Export(request)])
        await server.stop(5)
        data = settings.data_dir / "versions"
    # The service has ended with all its threads, so everything has been closed.
    assert open_files(data) == []
