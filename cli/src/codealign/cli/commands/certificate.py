"""`codealign certificate`: what the services of a cluster let us in with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from codealign.cli.certificate import Release, fetch, write
from codealign.cli.options import DEFAULT_HOME, HomeOption
from codealign.cli.terminal import err, out, printable

LOCAL_PORTS = {"coordinator": 7410, "dataset": 7420, "sandbox": 7430, "inference": 7440, "training": 7450}
"""Where each service's port is proposed to be forwarded to."""
COMPONENTS = {"training": "trainer"}
"""What the chart calls a service that has another name here."""


def certificate(
    release: Annotated[str, typer.Option("--release", help="The release's name: `helm list` shows it.")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Its namespace. Default: that of kubectl's context.")
    ] = "",
    context: Annotated[str, typer.Option("--context", help="kubectl's context. Default: its current one.")] = "",
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FOLDER", help="Where to. Default: certificates/RELEASE in the home folder."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Fetch the client certificate of a release in a cluster, and say how to use it.

    It is read with kubectl, from the Secret that the chart made for people. It opens every service of the release.
    """
    wanted = Release(release, namespace, context)
    found = fetch(wanted)
    folder = (into or home / "certificates" / release).expanduser().resolve()
    write(found.files, folder)
    err.print(Text(printable(f"the client certificate of {release} is in {folder}. What to do next, for the services")))
    err.print(Text("that you use (their certificates are good for localhost, too):"))
    lines = [f"export CODEALIGN_CERTIFICATE={shlex.quote(str(folder))}"]
    for service, port in LOCAL_PORTS.items():
        name = f"{found.full_name}-{COMPONENTS.get(service, service)}"
        lines.append(f"{shlex.join(wanted.kubectl)} port-forward service/{name} {port}:7400 &")
        lines.append(f"export CODEALIGN_{service.upper()}_ADDRESS=localhost:{port}")
    for line in lines:
        out.print(Text(printable(line)))
