"""`codealign console`: runs, records and models as pages in a browser."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.text import Text

from codealign.cli.connection import Target, connected, find
from codealign.cli.failures import Failure
from codealign.cli.interrupts import run_async
from codealign.cli.options import connects
from codealign.cli.stack import Options
from codealign.cli.terminal import StartDisplay, err, out

READ = ("dataset", "coordinator", "training")
"""Services that the console reads from."""
HOST = "127.0.0.1"


@connects(*READ)
def console(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1. 0: any free port.")] = 8484,
    open_page: Annotated[bool, typer.Option("--open", help="Open the console in the browser.")] = False,
    start: Annotated[
        bool, typer.Option("--start", help="Start the services that it reads from, if none of them is running.")
    ] = False,
    *,
    where: Target,
) -> None:
    """Show runs, records and models in the browser, until Ctrl-C. The console only reads.

    It shows the services of this machine, also while they come and go, or those whose addresses are given.
    """
    if importlib.util.find_spec("codealign.console") is None:
        raise Failure("the console is not installed: pip install codealign-console")
    run_async(_console(where, port, open_page=open_page, start=start), lambda: "the console has stopped")


async def _console(where: Target, port: int, *, open_page: bool, start: bool) -> None:
    if start and not where.explicit and not await find(where, READ):
        display = StartDisplay(err, brief=True)
        try:
            async with connected(where, READ, options=Options(), on_event=display, on_wait=display.wait):
                display.close()
                await _serve(where, port, open_page=open_page)
        finally:
            display.close()
        return
    await _serve(where, port, open_page=open_page)


async def _serve(where: Target, port: int, *, open_page: bool) -> None:
    from codealign.common.settings import LOOPBACK
    from codealign.console import main as server
    from codealign.console.reading import Services

    bound = server.listen(HOST, port)
    address = f"http://{HOST}:{bound.getsockname()[1]}/"

    def locate() -> Mapping[str, str]:
        return addresses(where)

    def ready() -> None:
        out.print(Text(f"the console is at {address}; press Ctrl-C to stop"))
        missing = [name for name in READ if name not in addresses(where)]
        if missing:
            err.print(Text(_absent(where, missing)))
        if open_page:
            typer.launch(address)

    services = Services(locate, where.tls if where.explicit else None)
    await server.serve(services, bound, names=frozenset(LOOPBACK), on_ready=ready)


def _absent(where: Target, missing: Sequence[str]) -> str:
    """Return what is missing, and how to add it."""
    if where.explicit:  # the home directory is not searched then
        options = ", ".join(f"--{name}" for name in missing)
        return f"no address is given for {', '.join(missing)}, so pages lack what comes from there; see {options}"
    return (
        f"not running in {where.home.root}: {', '.join(missing)}. Pages lack what comes from there until "
        "`codealign up` or `codealign run` with this --home starts them"
    )


def addresses(where: Target) -> dict[str, str]:
    """Return host:port of the services as they are now: given explicitly, or running in the home directory."""
    found = {}
    for name in READ:
        endpoint = None if where.explicit else where.home.endpoint(name)
        address = where.explicit.get(name) or (endpoint.address if endpoint is not None else "")
        if address:
            found[name] = address
    return found
