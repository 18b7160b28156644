"""`codealign up`."""

from __future__ import annotations

import asyncio

from rich.text import Text

from codealign.cli.connection import running
from codealign.cli.home import Home
from codealign.cli.launcher import Launcher
from codealign.cli.options import (
    DEFAULT_HOME,
    BenchmarksOption,
    EngineOption,
    HomeOption,
    ModelOption,
    RecordingOption,
    RecordOption,
    target,
)
from codealign.cli.running import run_async
from codealign.cli.stack import SERVICES, Options, specs
from codealign.cli.terminal import StartDisplay, out


def up(
    home: HomeOption = DEFAULT_HOME,
    model: ModelOption = "",
    engine: EngineOption = "",
    recording: RecordingOption = None,
    record: RecordOption = None,
    benchmarks: BenchmarksOption = None,
) -> None:
    """Start every service on this machine and keep it up, until Ctrl-C.

    The data in the home folder is the state: services that are stopped, or killed, go on from it.
    """
    options = Options(model, engine, recording, record, benchmarks)
    options.check()
    where = target(home).home
    with where.lock():
        run_async(_up(Launcher(where, specs(where, options), display := StartDisplay(out)), where, display))


async def _up(launcher: Launcher, home: Home, display: StartDisplay) -> None:
    try:
        async with running(launcher, home, SERVICES):
            display.close()
            out.print(Text(f"up in {home.root}; Ctrl-C stops. In another terminal: codealign run"))
            await asyncio.Event().wait()
    finally:
        display.close()
