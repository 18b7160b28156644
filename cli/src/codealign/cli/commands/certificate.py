"""`codealign certificate`: fetch the client certificate of a release in a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from codealign.cli.certificate import Release, fetch, write
from codealign.cli.options import DEFAULT_HOME, HomeOption
from codealign.cli.stack import service_package
from codealign.cli.terminal import err, out, printable

LOCAL_PORTS = {"coordinator": 7410, "dataset": 7420, "sandbox": 7430, "inference": 7440, "training": 7450}
"""Suggested local port for forwarding each service."""


def certificate(
    release: Annotated[str, typer.Option("--release", help="Name of the release, as `helm list` shows it.")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of the release. Default: that of kubectl's context.")
    ] = "",
    context: Annotated[str, typer.Option("--context", help="kubectl context. Default: the current one.")] = "",
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="DIRECTORY",
            help="Directory to write. Default: certificates/RELEASE in the home directory.",
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Fetch the client certificate of a release in a cluster, and print how to use it.

    The certificate is read with kubectl from the Secret that the chart creates. It gives access to every service of the
    release.
    """
    wanted = Release(release, namespace, context)
    found = fetch(wanted)
    folder = (into or home / "certificates" / release).expanduser().resolve()
    write(found.files, folder)
    err.print(
        Text(
            printable(
                f"wrote the client certificate of {release} to {folder}. Next, run these commands for the services"
            )
        )
    )
    err.print(Text("that you use (their certificates are valid for localhost, too):"))
    lines = [f"export CODEALIGN_CERTIFICATE={shlex.quote(str(folder))}"]
    for service, port in LOCAL_PORTS.items():
        name = f"{found.full_name}-{service_package(service)}"
        lines.append(f"{shlex.join(wanted.kubectl)} port-forward service/{name} {port}:7400 &")
        lines.append(f"export CODEALIGN_{service.upper()}_ADDRESS=localhost:{port}")
    for line in lines:
        out.print(Text(printable(line)))
