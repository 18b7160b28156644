"""Downloads a package from Debian with the ordinary apt client, without changing the system's package state."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
_KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}") for suffix in ("gpg", "pgp"))
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


class PackageUnavailable(Exception):
    """The package is not available; the message says why."""


def _one_line_uris(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.partition("#")[0])
        if match:
            yield match["uri"], match["suite"]


def _deb822_uris(text: str) -> Iterator[tuple[str, str]]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", lines):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite


def mirror_of(text: str, deb822: bool) -> str | None:
    """Return the Debian mirror in an apt source file.

    Args:
        text: Content of the file.
        deb822: Whether it is in the stanza format (`*.sources`) rather than the one-line format (`*.list`).

    Returns:
        The mirror's address, or None if there is none. Security mirrors and other repositories do not count.
    """
    for uri, suite in _deb822_uris(text) if deb822 else _one_line_uris(text):
        if uri.rstrip("/").endswith("/debian") and "security" not in suite:
            return uri.rstrip("/")
    return None


def machine_mirror() -> str:
    """Return the Debian mirror that this machine uses.

    Raises:
        PackageUnavailable: The apt sources contain no Debian mirror.
    """
    listed, folder = _SOURCES
    files = [listed, *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))]
    for path in files:
        if path.is_file():
            mirror = mirror_of(path.read_text(encoding="utf-8", errors="replace"), path.suffix == ".sources")
            if mirror:
                return mirror
    raise PackageUnavailable("the machine's apt sources contain no Debian mirror")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageUnavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise PackageUnavailable(f"{command[0]} {command[-1]}: {' '.join(last)}")


def unpack(package: str, suite: str, target: Path) -> None:
    """Download a package and unpack its files.

    apt writes only to a temporary directory: no list, cache or setting of the system changes, and root is not needed.
    The archive's signature is checked with the keyring that Debian installed.

    Args:
        package: Name of the package.
        suite: Debian suite to take it from.
        target: Directory to unpack into.

    Raises:
        PackageUnavailable: apt or dpkg is missing, there is no network, or the package does not exist.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise PackageUnavailable(f"{tool} is not installed on this machine")
    keyring = next((path for path in _KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise PackageUnavailable("the Debian archive keyring is not installed on this machine")
    with tempfile.TemporaryDirectory(prefix="codealign-apt-") as name:
        folder = Path(name)
        # apt-get drops privileges for the download, so another user must be able to enter the directory.
        folder.chmod(0o755)
        for part in ("lists/partial", "cache/archives/partial", "download"):
            (folder / part).mkdir(parents=True)
        (folder / "sources.list").write_text(f"deb [signed-by={keyring}] {machine_mirror()} {suite} main\n")
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-q", *(text for key, value in options.items() for text in ("-o", f"{key}={value}"))]
        _run([*apt, "update"], folder)
        _run([*apt, "download", package], folder / "download")
        archive = next((folder / "download").glob("*.deb"), None)
        if archive is None:
            raise PackageUnavailable(f"apt-get did not download the package {package}")
        _run(["dpkg", "-x", str(archive), str(target)], folder)
