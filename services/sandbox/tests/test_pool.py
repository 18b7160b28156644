"""Which runners are given work, and the errors if there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.errors import ConfigurationError, FailedPrecondition, Unavailable
from codealign.common.settings import load
from codealign.sandbox import pool as pool_module
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.pool import Pool
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost
from codealign.sandbox.settings import SandboxSettings

HOLDS = pb.IsolationCheck(name="kernel", passed=True, evidence="gVisor")
MISSING = pb.IsolationCheck(name="files", passed=False, evidence="/etc/shadow is visible")


class Runner(AttachedRunner):
    """A runner that only describes itself."""

    def __init__(
        self,
        *checks: pb.IsolationCheck,
        state: pb.RunnerState.ValueType = pb.RUNNER_STATE_READY,
        isolation: pb.Isolation.ValueType = pb.ISOLATION_GVISOR,
    ) -> None:
        self.description = pb.Runner(name="r", state=state, isolation_checks=checks, slots=1, isolation=isolation)
        self.closed = False
        self._ended = asyncio.Event()
        self._stops = False

    async def close(self) -> None:
        self.closed = True
        self._ended.set()

    async def drain(self, seconds: float) -> None:
        await self.close()


class Backend:
    """Starts nothing and returns what it was given."""

    def __init__(self, outcome: Runner | RunnerLost) -> None:
        self._outcome = outcome

    async def start(self) -> AttachedRunner:
        if isinstance(self._outcome, RunnerLost):
            raise self._outcome
        return self._outcome


@asynccontextmanager
async def keeping(*outcomes: Runner | RunnerLost, **options: Any) -> AsyncIterator[tuple[Pool, list[str]]]:
    reasons: list[str] = []

    async def changed(reason: str) -> None:
        reasons.append(reason)

    pool = Pool(Dispatcher(10, 3), changed, **options)
    await pool.start()
    for index, outcome in enumerate(outcomes):
        pool.keep(str(index), Backend(outcome))
    await asyncio.sleep(0.05)
    yield pool, reasons
    await pool.stop(0)


async def test_a_wall_that_does_not_hold_refuses_all_work_and_is_named() -> None:
    refused = Runner(HOLDS, MISSING, state=pb.RUNNER_STATE_REFUSED)
    async with keeping(refused) as (pool, reasons):
        with pytest.raises(FailedPrecondition, match=r"files: /etc/shadow is visible"):
            pool.check()
        assert refused.closed
        assert pool.slots == 0
        assert "files" in reasons[-1]
        assert [runner.state for runner in pool.descriptions] == [pb.RUNNER_STATE_REFUSED]


@pytest.mark.parametrize(
    ("runner", "why"),
    [
        (lambda: Runner(HOLDS, MISSING), "files: /etc/shadow"),
        (lambda: Runner(), "no isolation check was run"),
        (lambda: Runner(HOLDS, isolation=pb.ISOLATION_PROCESS), "its isolation is ISOLATION_PROCESS"),
        (lambda: Runner(HOLDS, isolation=pb.ISOLATION_UNSPECIFIED), "its isolation is ISOLATION_UNSPECIFIED"),
        (lambda: Runner(HOLDS, state=pb.RUNNER_STATE_REFUSED), "its state is RUNNER_STATE_REFUSED"),
    ],
)
async def test_a_runner_that_is_ready_by_its_own_account_alone_gets_no_work(runner: Any, why: str) -> None:
    async with keeping(runner()) as (pool, _):
        with pytest.raises(FailedPrecondition, match=why):
            pool.check()


async def test_less_isolation_is_taken_only_where_it_is_asked_for() -> None:
    process = Runner(MISSING, isolation=pb.ISOLATION_PROCESS)
    async with keeping(process, isolation=pb.ISOLATION_PROCESS) as (pool, reasons):
        pool.check()
        assert (pool.slots, reasons[-1]) == (1, "")


async def test_runners_that_do_not_start_are_unavailable() -> None:
    async with keeping(RunnerLost("no such platform")) as (pool, _):
        with pytest.raises(Unavailable, match="no such platform"):
            pool.check()


class Broken(Runner):
    """A runner whose end cannot be awaited."""

    async def wait_ended(self) -> None:
        raise KeyError("no such frame")


class InTurn:
    """Returns the given runners or errors in turn, repeating the last one."""

    def __init__(self, *outcomes: Runner | Exception) -> None:
        self._outcomes = list(outcomes)

    async def start(self) -> AttachedRunner:
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (other tasks change it)
            await asyncio.sleep(0.01)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_PAUSE", 0.01)


@pytest.mark.parametrize(
    "error",
    [ValueError("not a frame"), DecodeError("truncated"), KeyError("profile"), TypeError("a bug"), TimeoutError()],
)
async def test_whatever_goes_wrong_at_a_start_the_place_is_filled_again(at_once: None, error: Exception) -> None:
    works = Runner(HOLDS)
    async with keeping() as (pool, reasons):
        pool.keep("0", InTurn(error, error, works))
        await until(lambda: pool.slots == 1)
        pool.check()
        assert any(type(error).__name__ in reason or str(error) in reason for reason in reasons)


async def test_whatever_goes_wrong_with_a_runner_the_place_is_filled_again(at_once: None) -> None:
    broken, works = Broken(HOLDS), Runner(HOLDS)
    async with keeping() as (pool, _):
        pool.keep("0", InTurn(broken, broken, works))
        await until(lambda: pool.slots == 1 and broken.closed)
        pool.check()
        assert not works.closed


async def test_a_hello_without_sense_is_no_end_of_the_place(at_once: None) -> None:
    odd, works = Runner(HOLDS), Runner(HOLDS)
    odd.description.state = 77  # type: ignore[assignment]
    async with keeping() as (pool, _):
        pool.keep("0", InTurn(odd, works))
        await until(lambda: pool.slots == 1)
        assert odd.closed


async def test_a_place_without_a_runner_says_why(at_once: None) -> None:
    async with keeping() as (pool, _):
        pool.keep("0", InTurn(ValueError("a frame of 5 bytes")))
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable, match="ValueError: a frame of 5 bytes"):
            pool.check()


async def test_one_that_works_is_enough() -> None:
    async with keeping(RunnerLost("gone"), Runner(HOLDS)) as (pool, reasons):
        pool.check()
        assert (pool.slots, reasons[-1]) == (1, "")


async def test_where_others_start_the_runners_work_waits_for_one() -> None:
    async with keeping(patient=True) as (pool, reasons):
        pool.check()
        assert reasons == [""]
    async with keeping(RunnerLost("not up yet"), patient=True) as (pool, _):
        pool.check()


async def test_where_others_start_the_runners_work_is_refused_once_all_are_untrusted() -> None:
    async with keeping(Runner(MISSING), RunnerLost("not up yet"), patient=True) as (pool, _):
        pool.check()
    async with keeping(Runner(MISSING), Runner(MISSING), patient=True) as (pool, _):
        with pytest.raises(FailedPrecondition, match="files: /etc/shadow"):
            pool.check()


async def test_a_place_that_is_given_up_drains_its_runner() -> None:
    runner = Runner(HOLDS)
    async with keeping(runner, patient=True) as (pool, _):
        await pool.drop("0", 1)
        assert runner.closed
        assert (pool.slots, pool.places) == (0, set())
        pool.check()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"BACKEND": "process"}, "also set isolation=process"),
        ({"BACKEND": "docker", "ISOLATION": "process"}, "not backend=docker"),
        ({"BACKEND": "grpc", "ISOLATION": "process"}, "not backend=grpc"),
    ],
)
def test_no_isolation_is_never_a_misunderstanding(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"CODEALIGN_SANDBOX_{name}", value)
    with pytest.raises(ConfigurationError, match=message):
        load(SandboxSettings)


def test_isolation_is_gvisor_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load(SandboxSettings).backend, load(SandboxSettings).isolation) == ("runsc", "gvisor")
    monkeypatch.setenv("CODEALIGN_SANDBOX_ISOLATION", "process")
    assert load(SandboxSettings).backend == "process"
