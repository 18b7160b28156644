"""Runners whose executions end when a test ends them, and a dispatcher that gives them work."""

from __future__ import annotations

import asyncio
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.sandbox import validate
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.runners.attached import RunnerLost

from .conftest import request


class Scripted:
    """A runner whose executions end when the test ends them."""

    def __init__(self, name: str, slots: int = 1, backend: str = "runsc") -> None:
        self.description = pb.Runner(name=name, slots=slots, backend=backend)
        self.has: dict[str, asyncio.Future[pb.Result]] = {}
        self.started: list[str] = []
        self.requests: list[pb.ExecuteRequest] = []
        self.cancelled: list[str] = []
        self._gone = asyncio.Event()

    @property
    def is_alive(self) -> bool:
        return not self._gone.is_set()

    async def wait_ended(self) -> None:
        await self._gone.wait()

    async def execute(self, asked: pb.ExecuteRequest) -> pb.Result:
        name = asked.request_id
        assert len(self.has) < self.description.slots, "more than it has slots"
        self.started.append(name)
        self.requests.append(asked)
        self.has[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.has[name]
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            del self.has[name]

    async def finish(self, name: str, verdict: pb.Verdict.ValueType = pb.VERDICT_PASSED, **fields: Any) -> None:
        self.has[name].set_result(pb.Result(request_id=name, verdict=verdict, **fields))
        await settled()

    async def lose(self, error: RunnerLost | None = None) -> None:
        self._gone.set()
        for outcome in self.has.values():
            outcome.set_exception(error or RunnerLost("its stream ended"))
        await settled()


async def settled() -> None:
    """Wait until nothing more can happen."""
    for _ in range(20):
        await asyncio.sleep(0)


class Bench:
    """A dispatcher with its runners and calls."""

    def __init__(self, queue_limit: int = 1000, attempts: int = 3) -> None:
        self.dispatcher = Dispatcher(queue_limit, attempts)
        self._tasks: list[asyncio.Task[Any]] = []

    async def add(self, runner: Scripted, place: int | None = None) -> asyncio.Task[None]:
        serving = asyncio.create_task(self.dispatcher.serve(runner, place))
        self._tasks.append(serving)
        await settled()
        return serving

    async def call(self, name: str, caller: str = "a", **options: Any) -> asyncio.Task[pb.Result]:
        asked = validate.checked(request("x", wall_seconds=10, request_id=name))
        task = asyncio.create_task(self.dispatcher.execute(asked, caller, **options))
        self._tasks.append(task)
        await settled()
        return task

    async def calls(self, count: int, caller: str) -> None:
        for number in range(count):
            asked = pb.ExecuteRequest(request_id=f"{caller}{number}")
            self._tasks.append(asyncio.create_task(self.dispatcher.execute(asked, caller)))
        await settled()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
