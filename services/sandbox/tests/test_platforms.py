"""The choice of gVisor's platform: the faster one that isolates, remembered while it does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.sandbox import gvisor
from codealign.sandbox.platforms import AutomaticPlatform
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost


class Runner(AttachedRunner):
    """Executes nothing, in a given time."""

    def __init__(self, platform: str, seconds: float, passed: bool) -> None:
        state = pb.RUNNER_STATE_READY if passed else pb.RUNNER_STATE_REFUSED
        check = pb.IsolationCheck(name="files", passed=passed)
        self.description = pb.Runner(
            platform=platform,
            state=state,
            isolation=pb.ISOLATION_GVISOR,
            isolation_checks=[check],
            profiles=["default"],
        )
        self._seconds = seconds

    async def execute(self, request: pb.ExecuteRequest) -> pb.Result:
        await asyncio.sleep(self._seconds)
        return pb.Result()

    async def close(self) -> None:
        pass


class Machine:
    """Seconds for a program on each platform; None: it does not start; negative: it does not isolate."""

    def __init__(self, **platforms: float | None) -> None:
        self.platforms = platforms
        self.runsc = gvisor.Runsc(Path("/runsc"), 20240729)
        self.started: list[str] = []

    async def start(self, platform: str) -> AttachedRunner:
        self.started.append(platform)
        seconds = self.platforms[platform]
        if seconds is None:
            raise RunnerLost(f"{platform}: the machine says no")
        return Runner(platform, abs(seconds), seconds >= 0)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def started(machine: Machine, cache: Path, configured: str = "auto") -> str:
    return (await AutomaticPlatform(machine, configured, cache).start()).description.platform


async def test_the_faster_one_is_chosen_once_and_remembered(tmp_path: Path) -> None:
    machine = Machine(systrap=0.02, ptrace=0.001)
    assert await started(machine, tmp_path) == "ptrace"
    assert await started(machine, tmp_path) == "ptrace"
    assert machine.started == ["systrap", "ptrace", "ptrace"]


async def test_as_many_runners_are_tried_as_will_run_and_all_platforms_of_the_release(tmp_path: Path) -> None:
    machine = Machine(**{"systrap": 0.02, "systrap-no-fast-path": 0.001, "ptrace": 0.01})
    machine.runsc = gvisor.Runsc(Path("/runsc"), 20260905, ("systrap", "systrap-no-fast-path", "ptrace"))
    tried = min(2, os.cpu_count() or 1)
    platform = AutomaticPlatform(machine, "auto", tmp_path, runners=2)
    assert (await platform.start()).description.platform == "systrap-no-fast-path"
    assert machine.started == ["systrap"] * tried + ["systrap-no-fast-path"] * tried + ["ptrace"] * tried


async def test_a_faster_one_that_does_not_isolate_is_not_chosen(tmp_path: Path) -> None:
    assert await started(Machine(systrap=0.01, ptrace=-0.001), tmp_path) == "systrap"


async def test_where_none_isolates_the_evidence_is_given_and_nothing_remembered(tmp_path: Path) -> None:
    platform = AutomaticPlatform(machine := Machine(systrap=-0.001, ptrace=None), "auto", tmp_path)
    assert (await platform.start()).description.state == pb.RUNNER_STATE_REFUSED
    assert names_in(tmp_path) == []
    await platform.start()
    assert machine.started == ["systrap", "ptrace"] * 2


async def test_where_none_starts_each_ones_reason_is_given(tmp_path: Path) -> None:
    with pytest.raises(RunnerLost, match=r"systrap: the machine says no; ptrace: the machine says no"):
        await started(Machine(systrap=None, ptrace=None), tmp_path)


@pytest.mark.parametrize("broken", [None, -0.001])
async def test_a_remembered_one_that_stops_working_is_tried_anew(tmp_path: Path, broken: float | None) -> None:
    await started(Machine(systrap=0.02, ptrace=0.001), tmp_path)
    platform = AutomaticPlatform(machine := Machine(systrap=0.001, ptrace=broken), "auto", tmp_path)
    for _ in range(3):
        if broken is None:
            with pytest.raises(RunnerLost):
                await platform.start()
        else:
            assert (await platform.start()).description.state == pb.RUNNER_STATE_REFUSED
    assert (await platform.start()).description.platform == "systrap"
    assert machine.started == ["ptrace"] * 3 + ["systrap", "ptrace"]


async def test_one_that_fails_now_and_then_is_kept(tmp_path: Path) -> None:
    await started(Machine(systrap=0.02, ptrace=0.001), tmp_path)
    platform = AutomaticPlatform(machine := Machine(systrap=0.001, ptrace=None), "auto", tmp_path)
    for _ in range(2):
        with pytest.raises(RunnerLost):
            await platform.start()
        machine.platforms["ptrace"] = 0.02
        assert (await platform.start()).description.platform == "ptrace"
        machine.platforms["ptrace"] = None


async def test_another_gvisor_chooses_for_itself(tmp_path: Path) -> None:
    await started(Machine(systrap=0.02, ptrace=0.001), tmp_path)
    newer = Machine(systrap=0.001, ptrace=0.02)
    newer.runsc = gvisor.Runsc(Path("/runsc"), 20260905)
    assert await started(newer, tmp_path) == "systrap"


async def test_a_configured_one_is_taken_and_never_replaced(tmp_path: Path) -> None:
    platform = AutomaticPlatform(machine := Machine(systrap=0.001, ptrace=None), "ptrace", tmp_path)
    for _ in range(2):
        with pytest.raises(RunnerLost):
            await platform.start()
    assert machine.started == ["ptrace", "ptrace"]
