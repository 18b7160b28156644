"""Options that several commands share, and the connections that they describe."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from codealign.cli.certificate import client_tls
from codealign.cli.connection import Connection, Target, connected
from codealign.cli.home import Home
from codealign.cli.presets import Preset
from codealign.cli.stack import ISOLATIONS, Options
from codealign.cli.terminal import StartDisplay, err, warn
from codealign.common.clients import ClientTls

_PANEL = "Services elsewhere"
_TARGET = "where"
"""The parameter through which a command receives its `Target`."""

DEFAULT_HOME = Path(".codealign")
HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="CODEALIGN_HOME",
        help="Directory of the services on this machine: data, endpoints, logs.",
        show_default=".codealign",
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="Hub id, directory, artifact URL, or a name in the preset's `models`. Default: the service's model.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Inference engine: transformers, vllm, vllm-grpc, openai, replay or simulated. Default: transformers.",
    ),
]
RecordingOption = Annotated[
    Path | None, typer.Option("--recording", metavar="FILE", help="Completions that `--engine replay` answers with.")
]
RecordOption = Annotated[
    Path | None,
    typer.Option("--record", metavar="FILE", help="Record every completion in this file, for `--engine replay`."),
]
BenchmarksOption = Annotated[
    Path | None,
    typer.Option(
        "--benchmarks",
        metavar="PATH",
        help="Benchmark tasks (.jsonl, .jsonl.gz, or a directory of these). They are kept out of the data, and models "
        "are evaluated on them.",
    ),
]
IsolationOption = Annotated[
    str,
    typer.Option(
        "--isolation",
        metavar="|".join(ISOLATIONS),
        help="process: run programs without gVisor, for debugging only. Default: gvisor.",
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME|FILE",
        help="Values for options that you leave out. nano: the embedded model; small: for a small model; paper: the "
        "paper's scripts; default; or a YAML file.",
    ),
]


def _connection_options(services: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Return name, annotation and default of every option that says where these services are."""
    options: list[tuple[str, Any, Any]] = [("home", HomeOption, DEFAULT_HOME)]
    for service in services:
        name = service if service == "coordinator" else f"{service} service"
        address = typer.Option(
            f"--{service}",
            envvar=f"CODEALIGN_{service.upper()}_ADDRESS",
            metavar="HOST:PORT",
            help=f"Address of the {name}.",
            rich_help_panel=_PANEL,
        )
        options.append((service, Annotated[str, address], ""))
    files = (
        (
            "certificate",
            "CODEALIGN_CERTIFICATE",
            "Directory with ca.crt, tls.crt and tls.key; see `codealign certificate`.",
        ),
        ("tls_ca", "CODEALIGN_TLS_CA_FILE", "CA certificates of the services (PEM)."),
        ("tls_cert", "CODEALIGN_TLS_CERT_FILE", "Client certificate (PEM), for mutual TLS."),
        ("tls_key", "CODEALIGN_TLS_KEY_FILE", "Private key of the client certificate (PEM)."),
    )
    for key, variable, text in files:
        option = typer.Option(
            f"--{key.replace('_', '-')}",
            envvar=variable,
            metavar="DIRECTORY" if key == "certificate" else "FILE",
            help=text,
            rich_help_panel=_PANEL,
        )
        options.append((key, Annotated[Path | None, option], None))
    return options


def connects(*services: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the connection options to a command.

    The decorated command declares a keyword parameter `where` of type `Target`. On the command line it has --home, an
    address option for each service, and the TLS options in its place.

    Args:
        services: The services that the command calls.
    """
    shared = _connection_options(services)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [each for name, each in inspect.signature(command, eval_str=True).parameters.items() if name != _TARGET]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, annotation, default in shared
        ]

        @functools.wraps(command)
        def decorated(**given: Any) -> None:
            found = {name: given.pop(name) for name, _, _ in shared}
            tls = (found["certificate"], found["tls_ca"], found["tls_cert"], found["tls_key"])
            addresses = {service: found[service] for service in services}
            command(**given, **{_TARGET: target(found["home"], tls=tls, **addresses)})

        # Typer reads a command's options from its signature.
        decorated.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        decorated.__annotations__ = {}
        return decorated

    return decorate


def preset_options(preset: Preset, given: Options) -> Options:
    """Fill in options from a preset.

    If the user names a recording, or a model that is not the preset's, then the preset's model, benchmarks and engine
    settings do not apply.
    """
    if given.recording or (given.model and given.model not in preset.models):
        return given
    benchmarks = given.benchmarks
    if benchmarks is None and preset.benchmarks:
        benchmarks = Path(preset.source("benchmarks"))
    if given.engine == "simulated":  # its model is a profile, not a preset's model directory
        return replace(given, benchmarks=benchmarks)
    if given.model:
        settings = {**preset.inference, "model_name": given.model}
        return replace(given, model=preset.model_source(given.model), benchmarks=benchmarks, settings=settings)
    return replace(given, model=preset.source("model"), benchmarks=benchmarks, settings=preset.inference)


def target(
    home: Path,
    *,
    tls: tuple[Path | None, Path | None, Path | None, Path | None] = (None, None, None, None),
    **addresses: str,
) -> Target:
    """Return where a command finds the services.

    Args:
        home: The home directory.
        tls: The certificate directory, then the files with CA certificates, client certificate and key.
        addresses: host:port by service. Services without an address are looked up in the home directory.

    Raises:
        Failure: Addresses are given, but the certificate is missing or invalid.
    """
    explicit = {name: address for name, address in addresses.items() if address}
    # Services on this machine use plaintext, so an expired certificate must not fail a command that does not use it.
    return Target(Home(home), explicit, client_tls(tls[0], tls[1:]) if explicit else ClientTls())


def services(
    found: Target, *needs: str, options: Options | None = None, start: bool = True
) -> AbstractAsyncContextManager[Connection]:
    """Connect to services for one short command. Start those that are not running, for its duration.

    Args:
        found: Where to find them.
        needs: The services.
        options: How to start them.
        start: Whether services may be started.
    """
    return _services(found, needs, (options or Options()) if start else None)


@asynccontextmanager
async def _services(found: Target, needs: Sequence[str], options: Options | None) -> AsyncIterator[Connection]:
    display = StartDisplay(err, brief=True)
    if options is not None:
        warn(err, options.warning())
    try:
        async with connected(found, needs, options=options, on_event=display, on_wait=display.wait) as connection:
            display.close()
            yield connection
    finally:
        display.close()
