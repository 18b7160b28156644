"""Options that several commands share, and what they come to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from codealign.cli.certificate import client_tls
from codealign.cli.connection import Connection, Target, connected
from codealign.cli.home import Home
from codealign.cli.presets import Preset
from codealign.cli.stack import Options
from codealign.cli.terminal import StartDisplay, err, warn
from codealign.common.clients import ClientTls

_SERVICES = "Services elsewhere"

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="CODEALIGN_HOME",
        help="Folder of this machine's services: data, endpoints, logs.",
        show_default=".codealign",
    ),
]
DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        envvar="CODEALIGN_DATASET_ADDRESS",
        metavar="HOST:PORT",
        help="Use this dataset service.",
        rich_help_panel=_SERVICES,
    ),
]
CoordinatorOption = Annotated[
    str,
    typer.Option(
        "--coordinator",
        envvar="CODEALIGN_COORDINATOR_ADDRESS",
        metavar="HOST:PORT",
        help="Use this coordinator.",
        rich_help_panel=_SERVICES,
    ),
]
SandboxOption = Annotated[
    str,
    typer.Option(
        "--sandbox",
        envvar="CODEALIGN_SANDBOX_ADDRESS",
        metavar="HOST:PORT",
        help="Use this sandbox service.",
        rich_help_panel=_SERVICES,
    ),
]
TrainingOption = Annotated[
    str,
    typer.Option(
        "--training",
        envvar="CODEALIGN_TRAINING_ADDRESS",
        metavar="HOST:PORT",
        help="Use this training service.",
        rich_help_panel=_SERVICES,
    ),
]
InferenceOption = Annotated[
    str,
    typer.Option(
        "--inference",
        envvar="CODEALIGN_INFERENCE_ADDRESS",
        metavar="HOST:PORT",
        help="Use this inference service.",
        rich_help_panel=_SERVICES,
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        envvar="CODEALIGN_CERTIFICATE",
        metavar="FOLDER",
        help="Folder with ca.crt, tls.crt and tls.key, as `codealign certificate` writes it.",
        rich_help_panel=_SERVICES,
    ),
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        envvar="CODEALIGN_TLS_CA_FILE",
        help="Authorities of these services' certificates (PEM).",
        rich_help_panel=_SERVICES,
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        envvar="CODEALIGN_TLS_CERT_FILE",
        help="Our own certificate (PEM), for mutual TLS.",
        rich_help_panel=_SERVICES,
    ),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-key", envvar="CODEALIGN_TLS_KEY_FILE", help="Its private key (PEM).", rich_help_panel=_SERVICES
    ),
]
ModelOption = Annotated[
    str, typer.Option("--model", help="Hub id, folder or artifact URL. Default: the inference service's own.")
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="transformers, replay, simulated, ... Default: the inference service's own.")
]
RecordingOption = Annotated[
    Path | None, typer.Option("--recording", help="Completions that `--engine replay` answers from.")
]
RecordOption = Annotated[
    Path | None, typer.Option("--record", help="Write every completion to this file, for `--engine replay`.")
]
BenchmarksOption = Annotated[
    Path | None,
    typer.Option(
        "--benchmarks",
        help="Benchmark tasks (.jsonl, .jsonl.gz, or a folder of them): kept out of the data, and evaluated on.",
    ),
]

IsolationOption = Annotated[
    str,
    typer.Option(
        "--isolation",
        metavar="gvisor|process",
        help="process: run programs without gVisor, for debugging only. Default: gvisor.",
    ),
]

PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME|FILE",
        help="What is set where you choose nothing. nano: the embedded model; small: for a small model; paper: as its "
        "scripts do it; default; or a YAML file.",
    ),
]

DEFAULT_HOME = Path(".codealign")


def preset_options(preset: Preset, given: Options) -> Options:
    """The options, and the preset's for what was not given.

    A model that a person names, or a recording, is not the preset's: its settings do not follow it.
    """
    if given.model or given.recording:
        return given
    benchmarks = given.benchmarks
    if benchmarks is None and preset.benchmarks:
        benchmarks = Path(preset.source("benchmarks"))
    if given.engine == "simulated":  # its model is a profile, which a preset's folder is not
        return replace(given, benchmarks=benchmarks)
    return replace(given, model=preset.source("model"), benchmarks=benchmarks, settings=preset.inference)


def target(
    home: Path,
    *,
    tls: tuple[Path | None, Path | None, Path | None, Path | None] = (None, None, None, None),
    **addresses: str,
) -> Target:
    """Where a command finds the services.

    Args:
        home: The home folder.
        tls: The folder of a certificate; files of authorities, certificate and key.
        addresses: host:port by service; empty ones are looked for in the home.

    Raises:
        Failure: Addresses are given, and the certificate is missing or not good.
    """
    explicit = {name: address for name, address in addresses.items() if address}
    # On this machine services speak in the clear: a certificate that is not used may be expired.
    return Target(Home(home), explicit, client_tls(tls[0], tls[1:]) if explicit else ClientTls())


def services(
    found: Target, *needs: str, options: Options | None = None, start: bool = True
) -> AbstractAsyncContextManager[Connection]:
    """Connect to services for one short command; what is not up is started for its duration.

    Args:
        found: Where to look.
        needs: The services.
        options: How to start them.
        start: They may be started.
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
