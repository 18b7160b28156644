"""Client certificates for a release in a cluster: fetch, store, check.

A certificate directory has ca.crt, tls.crt and tls.key, the names that Kubernetes uses in a Secret.
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
    """A Helm release of the chart, and how to reach its cluster."""

    name: str
    namespace: str = ""
    """Empty: the namespace of kubectl's context."""
    context: str = ""
    """kubectl context. Empty: the current one."""

    @property
    def where(self) -> str:
        """The namespace, for messages."""
        return f"namespace {self.namespace}" if self.namespace else "the namespace of kubectl's context"

    @property
    def kubectl(self) -> tuple[str, ...]:
        """The kubectl command line up to its verb."""
        context = ("--context", self.context) if self.context else ()
        return ("kubectl", *context, *(("--namespace", self.namespace) if self.namespace else ()))

    @property
    def secret(self) -> str:
        """Name of the Secret with the client certificate, unless the chart's values override names."""
        full = self.name if "codealign" in self.name else f"{self.name}-codealign"
        return full[:40].removesuffix("-") + _SUFFIX


@dataclass(frozen=True)
class Found:
    """Client certificate of a release."""

    full_name: str
    """Prefix of the names of the release's services."""
    files: Mapping[str, bytes]


class _Forbidden(Failure):
    """The cluster denies access to the Secret."""


def fetch(release: Release) -> Found:
    """Fetch the client certificate with the user's kubectl.

    Raises:
        Failure: kubectl is missing, or the release or its certificate does not exist or may not be read.
    """
    if not _NAME.fullmatch(release.name):
        raise Failure(f"--release: {release.name!r} is not a valid release name; `helm list` shows the releases")
    try:
        answer = _kubectl(release, "--selector", f"{CLIENT_SELECTOR},app.kubernetes.io/instance={release.name}")
        secrets = json.loads(answer)["items"]
    except _Forbidden as error:
        secrets = [_by_name(release, error)]  # RBAC may allow `get` of this Secret but not `list`
    secrets = [secret for secret in secrets if set(FILES) <= set(secret.get("data") or {})]
    if not secrets:
        raise _no_such(release)
    secret = secrets[0]
    name = str(secret["metadata"]["name"])
    try:
        files = {file: base64.b64decode(secret["data"][file], validate=True) for file in FILES}
        read = certificates.read(files[CHAIN])[0]
    except (binascii.Error, ValueError) as error:
        raise Failure(f"cannot read the certificate in the Secret {name}: {error}") from None
    if reason := certificates.why_invalid(read):
        raise Failure(
            f"the certificate in the Secret {name} {reason}. Ask the owner of {release.name} to renew it with "
            "tls.generated.rotation or cert-manager"
        )
    return Found(name.removesuffix(_SUFFIX), files)


def _by_name(release: Release, refusal: _Forbidden) -> dict[str, Any]:
    with contextlib.suppress(_Forbidden):
        return dict(json.loads(_kubectl(release, release.secret)))
    raise Failure(
        f"permission denied for the client certificate of {release.name} in {release.where}: ask for permission to get "
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
            f"no release {release.name!r} with a client certificate in {release.where}; found: {', '.join(others)}"
        )
    return Failure(
        f"no release with a client certificate in {release.where}: pass another --namespace (`helm list "
        "--all-namespaces` shows the releases). A release with tls.mode=disabled needs no certificate"
    )


def _kubectl(release: Release, *what: str, output: str = "json") -> str:
    command = (*release.kubectl, "get", "secret", *what, "--output", output)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_KUBECTL_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise Failure(
            "kubectl is not on PATH: install it, or copy ca.crt, tls.crt and tls.key from the Secret "
            f"{release.secret} into a directory and pass that with --certificate"
        ) from None
    except subprocess.TimeoutExpired:
        raise Failure(f"kubectl did not answer within {_KUBECTL_SECONDS} s: is the cluster running?") from None
    if done.returncode == 0:
        return done.stdout
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    if "forbidden" in said.lower():
        raise _Forbidden(said)
    if "(NotFound)" in said:
        raise Failure(f"no release {release.name!r} with a client certificate in {release.where}: {said}")
    raise Failure(f"kubectl: {said}")


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a certificate directory atomically, replacing the previous one.

    Raises:
        Failure: The directory cannot be written, or contains other files.
    """
    try:
        others = {path.name for path in folder.iterdir()} - set(FILES) if folder.exists() else set()
        if others:
            raise Failure(
                f"{folder} contains other files ({sorted(others)[0]}): pass an empty or new directory with --into"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # readable by the owner only
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
        raise Failure(f"the key in the release's Secret does not match its certificate: {reason}")


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
    """Return the TLS settings of the client. Single files win over those of the directory.

    Args:
        folder: Certificate directory, as `write` leaves it. With ca.crt alone, TLS is not mutual.
        files: The files with CA certificates, client certificate and key.

    Raises:
        Failure: The directory has no certificate, or the certificate is unreadable, expired or not yet valid.
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
            raise Failure(f"TLS: the key {key} does not match the certificate {cert}: {reason}")
    return ClientTls(ca, cert, key)


def _check(cert: Path, folder: Path | None) -> None:
    """Check the certificate up front, because a failed handshake does not say why."""
    try:
        read = certificates.read(cert.read_bytes())[0]
    except OSError as error:
        raise Failure(f"TLS: cannot read {cert} ({error.strerror})") from None
    except ValueError as error:
        raise Failure(f"TLS: cannot parse {cert}: {error}") from None
    if reason := certificates.why_invalid(read):
        if folder is not None and cert.parent == folder:
            again = f"run `codealign certificate` again with its --release and --namespace, and --into {folder}"
            raise Failure(f"the certificate in {folder} {reason}: {again}")
        raise Failure(f"the certificate {cert} {reason}: pass a valid one")
