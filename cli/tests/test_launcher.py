"""Services that start, fail to start, die, or do not stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codealign.cli import launcher as launcher_module
from codealign.cli.child import ServiceSpec, is_ready
from codealign.cli.connection import Target, connected, find, running
from codealign.cli.failures import Failure
from codealign.cli.home import Home, HomeInUse
from codealign.cli.launcher import Event, Launcher, RestartPolicy
from codealign.cli.stack import Options

Fake = Callable[..., ServiceSpec]


async def test_services_start_in_the_order_of_their_needs_and_get_addresses(
    home: Home, fake: Fake, tmp_path: Path
) -> None:
    events: list[Event] = []
    launcher = Launcher(home, [fake("top", needs=("base",)), fake("base")], events.append)
    try:
        endpoints = await launcher.start()
        assert [event.service for event in events if event.kind == "ready"] == ["base", "top"]
        seen = json.loads((tmp_path / "top.environment").read_text())
        assert seen["CODEALIGN_TOP_BASE_ADDRESS"] == endpoints["base"].address
        assert await is_ready(endpoints["top"].health_address)
        assert home.endpoint("top") == endpoints["top"]
    finally:
        await launcher.stop()
    assert [event.service for event in events if event.kind == "stopped"] == ["top", "base"]
    assert home.endpoint("top") is None


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        pytest.param("misconfigured", "^codealign-bad: CODEALIGN_BAD_SLOTS: must be positive$", id="misconfigured"),
        pytest.param("crashes", "bad ended with exit code 1: RuntimeError: no such database", id="crashes"),
        pytest.param("silent", "bad ended with exit code 3: no output", id="silent"),
    ],
)
async def test_a_service_that_cannot_start_says_why_and_the_others_are_stopped(
    home: Home, fake: Fake, behaviour: str, message: str
) -> None:
    launcher = Launcher(home, [fake("bad", behaviour), fake("good", "slow")])
    with pytest.raises(Failure, match=message):
        async with running(launcher, home, ("bad", "good")):
            pytest.fail("it is not up")
    assert not await find(Target(home), ("good",))


async def test_a_service_that_is_not_ready_in_time_is_a_failure_with_its_state(home: Home, fake: Fake) -> None:
    launcher = Launcher(home, [fake("stuck", "hangs", ready_seconds=0.7)])
    with pytest.raises(Failure, match=r"stuck is not ready after 1 s \(loading\)"):
        async with running(launcher, home, ("stuck",)):
            pytest.fail("it is not up")


async def test_a_service_that_dies_is_started_again_where_it_listened(home: Home, fake: Fake) -> None:
    events: list[Event] = []
    ready_again = asyncio.Event()

    def on_event(event: Event) -> None:
        events.append(event)
        if sum(event.kind == "ready" for event in events) == 2:
            ready_again.set()

    launcher = Launcher(home, [fake("flaky", "fails once")], on_event, RestartPolicy(first_delay=0.1))
    async with running(launcher, home, ("flaky",)) as addresses:
        async with asyncio.timeout(20):
            await ready_again.wait()
        (ended,) = [event for event in events if event.kind == "ended"]
        assert "flaky ended by signal 9" in ended.text
        assert "restarting in" in ended.text
        assert launcher.endpoints()["flaky"].address == addresses["flaky"]


async def test_a_service_that_keeps_dying_is_given_up(home: Home, fake: Fake) -> None:
    policy = RestartPolicy(first_delay=0.05, failures=2)
    launcher = Launcher(home, [fake("doomed", "dies later")], restart=policy)
    with pytest.raises(Failure, match="after 2 failures in a row"):
        async with running(launcher, home, ("doomed",)):
            await asyncio.sleep(30)


async def test_what_ignores_sigterm_is_killed(home: Home, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "STOP_SECONDS", 0.3)
    launcher = Launcher(home, [fake("stubborn", "ignores SIGTERM")])
    endpoint = (await launcher.start())["stubborn"]
    await launcher.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(endpoint.pid, 0)


async def test_prometheus_is_told_where_a_service_is_while_it_runs(home: Home, fake: Fake) -> None:
    launcher = Launcher(home, [fake("one")])
    endpoint = (await launcher.start())["one"]
    (target,) = json.loads(home.scrape_file("one").read_text())
    assert target == {"targets": [f"{endpoint.host}:{endpoint.metrics_port}"], "labels": {"job": "codealign-one"}}
    await launcher.stop()
    assert not home.scrape_file("one").exists()


async def test_an_error_inside_comes_out_as_it_is_and_services_are_stopped(home: Home, fake: Fake) -> None:
    launcher = Launcher(home, [fake("one")])
    with pytest.raises(Failure, match=r"^mine$"):
        async with running(launcher, home, ("one",)):
            raise Failure("mine")
    assert home.endpoint("one") is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_services_die_with_their_parent_even_when_it_is_killed(home: Home, fake: Fake, tmp_path: Path) -> None:
    spec = fake("orphan")
    program = tmp_path / "parent.py"
    program.write_text(
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from codealign.cli.child import Child, ServiceSpec\n"
        "from codealign.cli.home import Home\n"
        "async def main():\n"
        f"    child = Child(ServiceSpec('orphan', {spec.command!r}), Home(Path({str(home.root)!r})))\n"
        "    await child.start({})\n"
        "    await child.until_ready()\n"
        "    print(child.endpoint.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while home.endpoint("orphan") is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert home.endpoint("orphan") is None, f"{pid} lives"


def test_two_cannot_hold_one_home_and_the_second_is_told_who_does(home: Home) -> None:
    with home.lock(), pytest.raises(HomeInUse, match=f"process {os.getpid()} already runs"), home.lock():
        pytest.fail("it is locked")
    with home.lock():
        pass


def test_an_endpoint_whose_process_is_gone_is_none(home: Home) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    ports = {"host": "127.0.0.1", "port": 1, "health_port": 2, "metrics_port": 3, "pid": gone.pid}
    home.endpoint_file("dataset").write_text(json.dumps(ports))
    assert home.endpoint("dataset") is None
    home.endpoint_file("dataset").write_text("{")
    assert home.endpoint("dataset") is None


async def test_a_command_uses_what_another_one_starts_instead_of_starting_it_too(home: Home, fake: Fake) -> None:
    said: list[str] = []

    async def other() -> None:
        with home.lock():
            async with running(Launcher(home, [fake("sandbox", "slow")]), home, ("sandbox",)):
                await asyncio.sleep(3)

    first = asyncio.create_task(other())
    await asyncio.sleep(0.1)
    async with connected(
        Target(home), ("sandbox",), options=Options(), on_event=lambda _: None, on_wait=said.append
    ) as connection:
        assert not connection.started
        assert connection.addresses.sandbox
    assert f"process {os.getpid()} is starting" in said[0]
    await first


async def test_what_may_not_be_started_is_a_failure_that_says_what_to_do(home: Home) -> None:
    with pytest.raises(Failure, match=r"not running in .*: coordinator. Start the services with `codealign up`"):
        async with connected(
            Target(home), ("coordinator",), options=None, on_event=lambda _: None, on_wait=lambda _: None
        ):
            pytest.fail("it is not up")
    half = Target(home, {"coordinator": "far:1"})
    with pytest.raises(Failure, match="set CODEALIGN_DATASET_ADDRESS"):
        async with connected(
            half, ("coordinator", "dataset"), options=Options(), on_event=lambda _: None, on_wait=lambda _: None
        ):
            pytest.fail("it is not up")
