"""`codealign up`: start all services on this machine."""

from __future__ import annotations

import asyncio
from collections import Counter

from rich.text import Text

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.commands.sandbox import runner_line
from codealign.cli.connection import Connection, running
from codealign.cli.home import Home
from codealign.cli.interrupts import run_async
from codealign.cli.launcher import Launcher
from codealign.cli.options import (
    DEFAULT_HOME,
    BenchmarksOption,
    EngineOption,
    HomeOption,
    IsolationOption,
    ModelOption,
    PresetOption,
    RecordingOption,
    RecordOption,
    preset_options,
    target,
)
from codealign.cli.presets import DEFAULT, load
from codealign.cli.stack import SERVICES, Options, specs
from codealign.cli.terminal import StartDisplay, count, out, warn
from codealign.common.clients import ClientTls


def up(
    home: HomeOption = DEFAULT_HOME,
    model: ModelOption = "",
    engine: EngineOption = "",
    recording: RecordingOption = None,
    record: RecordOption = None,
    benchmarks: BenchmarksOption = None,
    preset: PresetOption = DEFAULT,
    isolation: IsolationOption = "",
) -> None:
    """Start all services on this machine and keep them running until Ctrl-C.

    Their state is in the home directory: services that were stopped or killed continue from it.
    """
    options = preset_options(load(preset), Options(model, engine, recording, record, benchmarks, isolation))
    options.check()
    warn(out, options.warning())
    where = target(home).home
    with where.lock():
        run_async(_up(Launcher(where, specs(where, options), display := StartDisplay(out)), where, display))


async def _say_sandbox(address: str) -> None:
    """Print one line for each kind of runner: how it isolates programs."""
    connection = Connection({"sandbox": address}, ClientTls(), started=True)
    try:
        runners = (await connection.call(connection.clients.sandbox.GetRunner, sb.GetRunnerRequest())).runners
    finally:
        await connection.clients.close()
    for text, number in Counter(runner_line(runner) for runner in runners).items():
        out.print(Text(f"{'':<12} {count(number, 'runner')}: {text}"))


async def _up(launcher: Launcher, home: Home, display: StartDisplay) -> None:
    try:
        async with running(launcher, home, SERVICES) as addresses:
            display.close()
            await _say_sandbox(addresses["sandbox"])
            out.print(
                Text(f"services are running in {home.root}; press Ctrl-C to stop. In another terminal: codealign run")
            )
            await asyncio.Event().wait()
    finally:
        display.close()
