"""Our own certificate of a release in a cluster: how it is fetched, where it lies, and what is read of it.

A folder has ca.crt, tls.crt and tls.key, as Kubernetes calls them in a Secret; all of them or none.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codealign.cli.failures import Failure
from codealign.common import certificates
from codealign.common.clients import ClientTls

AUTHORITY, CHAIN, KEY = FILES = ("ca.crt", "tls.crt", "tls.key")
CLIENT_SELECTOR = "app.kubernetes.io/part-of=codealign,app.kubernetes.io/component=client"
_SUFFIX = "-client-tls"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_KUBECTL_SECONDS = 60


@dataclass(frozen=True)
class Release:
    """A release of the chart, and how to reach the cluster that it is in."""

    name: str
    namespace: str = ""
    """Empty: that of kubectl's context."""
    context: str = ""
    """kubectl's. Empty: its current one."""

    @property
    def where(self) -> str:
        """Its namespace, for a message."""
        return f"namespace {self.namespace}" if self.namespace else "the namespace of kubectl's context"

    @property
    def kubectl(self) -> tuple[str, ...]:
        """The command up to its verb."""
        context = ("--context", self.context) if self.context else ()
        return ("kubectl", *context, *(("--namespace", self.namespace) if self.namespace else ()))

    @property
    def secret(self) -> str:
        """What its Secret is called, where the values change no names."""
        full = self.name if "codealign" in self.name else f"{self.name}-codealign"
        return full[:40].removesuffix("-") + _SUFFIX


@dataclass(frozen=True)
class Found:
    """A release's certificate for people."""

    full_name: str
    """What the names of the release's services begin with."""
    files: Mapping[str, bytes]


class _Forbidden(Failure):
    """The cluster does not let us read it."""


def fetch(release: Release) -> Found:
    """Ask the cluster, by way of the kubectl of whoever calls.

    Raises:
        Failure: There is no kubectl, no such release or no certificate of it, or it may not be read.
    """
    if not _NAME.fullmatch(release.name):
        raise Failure(f"--release: no release can be called {release.name!r}: `helm list` shows their names")
    try:
        answer = _kubectl(release, "--selector", f"{CLIENT_SELECTOR},app.kubernetes.io/instance={release.name}")
        secrets = json.loads(answer)["items"]
    except _Forbidden as error:
        secrets = [_by_name(release, error)]  # who may `get` the one Secret need not be allowed to list them
    secrets = [secret for secret in secrets if set(FILES) <= set(secret.get("data") or {})]
    if not secrets:
        raise _no_such(release)
    secret = secrets[0]
    name = str(secret["metadata"]["name"])
    try:
        files = {file: base64.b64decode(secret["data"][file], validate=True) for file in FILES}
        read = certificates.read(files[CHAIN])[0]
    except (binascii.Error, ValueError) as error:
        raise Failure(f"the Secret {name} has no certificate that can be read: {error}") from None
    if reason := certificates.why_invalid(read):
        raise Failure(
            f"the certificate in the Secret {name} {reason}. Whoever installed {release.name} renews it: with "
            "tls.generated.rotation, or by cert-manager"
        )
    return Found(name.removesuffix(_SUFFIX), files)


def _by_name(release: Release, refusal: _Forbidden) -> dict[str, Any]:
    with contextlib.suppress(_Forbidden):
        return dict(json.loads(_kubectl(release, release.secret)))
    raise Failure(
        f"you may not read the client certificate of {release.name} in {release.where}: have somebody allow you to get "
        f"the Secret {release.secret} (kubectl: {refusal.message})"
    )


def _no_such(release: Release) -> Failure:
    path = r"jsonpath={.items[*].metadata.labels.app\.kubernetes\.io/instance}"
    try:
        others = sorted(set(_kubectl(release, "--selector", CLIENT_SELECTOR, output=path).split()))
    except Failure:
        others = []
    if others:
        return Failure(
            f"no release {release.name!r} with a client certificate in {release.where}; there is {', '.join(others)}"
        )
    return Failure(
        f"no release with a client certificate in {release.where}: name another --namespace (`helm list "
        "--all-namespaces` shows them). One with tls.mode=disabled has none, and needs none"
    )


def _kubectl(release: Release, *what: str, output: str = "json") -> str:
    command = (*release.kubectl, "get", "secret", *what, "--output", output)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_KUBECTL_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise Failure(
            "there is no kubectl on PATH: install it, or copy ca.crt, tls.crt and tls.key of the Secret "
            f"{release.secret} into a folder and name that with --certificate"
        ) from None
    except subprocess.TimeoutExpired:
        raise Failure(f"kubectl did not answer within {_KUBECTL_SECONDS} s: is the cluster there?") from None
    if done.returncode == 0:
        return done.stdout
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    if "forbidden" in said.lower():
        raise _Forbidden(said)
    if "(NotFound)" in said:
        raise Failure(f"no release {release.name!r} with a client certificate in {release.where}: {said}")
    raise Failure(f"kubectl: {said}")


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a certificate's folder as a whole, in place of the one that was there.

    Raises:
        Failure: It cannot be written, or has something else in it.
    """
    try:
        others = {path.name for path in folder.iterdir()} - set(FILES) if folder.exists() else set()
        if others:
            raise Failure(f"{folder} has other files in it ({sorted(others)[0]}): name a folder of its own with --into")
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # for us alone, as is what it holds
        try:
            for name, content in files.items():
                descriptor = os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
            _check_pair(made)
            _swap(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise Failure(f"cannot write {folder} ({error.strerror})") from None


def _check_pair(folder: Path) -> None:
    if reason := certificates.why_mismatched(folder / CHAIN, folder / KEY):
        raise Failure(f"the key in the release's Secret cannot be used with its certificate: {reason}")


def _swap(made: Path, folder: Path) -> None:
    if not folder.exists():
        made.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    folder.rename(old)
    try:
        made.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def client_tls(folder: Path | None, files: Sequence[Path | None]) -> ClientTls:
    """What to show to services, and whom to believe. Single files win over the folder's.

    Args:
        folder: As `write` leaves it. One with ca.crt alone is for services that want no certificate.
        files: Of authorities, certificate and key.

    Raises:
        Failure: There is none in the folder, or it is good for nothing now.
    """
    ca, cert, key = files
    if folder is not None:
        if not (folder / AUTHORITY).is_file():
            raise Failure(f"no certificate in {folder}: `codealign certificate --into {folder}` fetches one")
        has_own = (folder / CHAIN).exists()
        ca = ca or folder / AUTHORITY
        cert, key = cert or (folder / CHAIN if has_own else None), key or (folder / KEY if has_own else None)
    if cert is not None:
        _check(cert, folder)
        if key is not None and key.is_file() and (reason := certificates.why_mismatched(cert, key)):
            raise Failure(f"TLS: the key in {key} cannot be used with the certificate in {cert}: {reason}")
    return ClientTls(ca, cert, key)


def _check(cert: Path, folder: Path | None) -> None:
    """Else the handshake fails, and says nothing of why."""
    try:
        read = certificates.read(cert.read_bytes())[0]
    except OSError as error:
        raise Failure(f"TLS: cannot read {cert} ({error.strerror})") from None
    except ValueError as error:
        raise Failure(f"TLS: {cert} cannot be used: {error}") from None
    if reason := certificates.why_invalid(read):
        if folder is not None and cert.parent == folder:
            again = f"run `codealign certificate` with its --release and --namespace and --into {folder} again"
            raise Failure(f"the certificate in {folder} {reason}: {again}")
        raise Failure(f"the certificate {cert} {reason}: name one that is good")
