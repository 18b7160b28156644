"""Finds a runsc that isolates: on PATH, in the cache, or taken from Debian into the cache.

`python -m codealign.sandbox.gvisor` does so ahead of time: `make setup` calls it, so that a run needs no network.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.sandbox import debian
from codealign.sandbox.settings import SandboxSettings

OLDEST_RELEASE = 20240729
"""The oldest whose namespaces isolate. In 20221219 (Debian 12) unshare(CLONE_NEWNS) says yes and does nothing."""
_SUITE = "trixie"
_RELEASE = re.compile(r"^runsc version (?:release-|0\.0~)?(\d{8})(?:\.\d+)?", re.MULTILINE)

log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Runsc:
    """A usable binary."""

    path: Path
    release: int
    """Its date: 20240729."""


class Unusable(Exception):
    """A binary that is not to be used; the message says why."""


def parse_release(output: str) -> int:
    """The release from what `runsc --version` prints.

    Raises:
        Unusable: It names no release, or one whose namespaces do not isolate.
    """
    match = _RELEASE.search(output)
    if match is None:
        first = output.strip().splitlines()[:1]
        raise Unusable(f"its version names no release: {' '.join(first)!r}")
    release = int(match[1])
    if release < OLDEST_RELEASE:
        raise Unusable(
            f"release {release} is too old: before {OLDEST_RELEASE} unshare(CLONE_NEWNS) succeeds inside gVisor and "
            "isolates nothing, so executions could read each other's files"
        )
    return release


def examine(path: Path) -> Runsc:
    """Asks a binary for its release.

    Raises:
        Unusable: It does not run, or is not to be used.
    """
    try:
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"it does not run: {error}") from error
    return Runsc(path, parse_release(done.stdout))


def _download(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as folder:
        unpacked = Path(folder)
        debian.unpack("runsc", _SUITE, unpacked)
        # A rename within one folder is whole or not at all, whoever else is downloading.
        (unpacked / "usr" / "bin" / "runsc").rename(place)


def locate(cache: Path) -> Runsc:
    """Finds or fetches the binary.

    Args:
        cache: The project's cache folder.

    Raises:
        ConfigurationError: There is none, and none can be had; says which command gets one.
    """
    refused: list[str] = []
    cached = cache / "bin" / "runsc"
    on_path = shutil.which("runsc")
    for path in (Path(on_path) if on_path else None, cached):
        if path is None or not path.is_file():
            continue
        try:
            return examine(path)
        except Unusable as error:
            refused.append(f"{path}: {error}")
    try:
        log.info("downloading_runsc", suite=_SUITE, target=str(cached))
        _download(cached)
        return examine(cached)
    except (debian.PackageUnavailable, Unusable, OSError) as error:
        refused.append(f"Debian {_SUITE}: {error}")
    raise ConfigurationError(
        f"no usable runsc (gVisor, release {OLDEST_RELEASE} or later): {'; '.join(refused)}. Get one with: curl -fsSL "
        f"https://storage.googleapis.com/gvisor/releases/release/latest/$(uname -m)/runsc -o {cached} --create-dirs "
        f"&& chmod +x {cached}"
    )


def main() -> None:
    """Finds or fetches the binary where the sandbox service looks for it, and prints its path."""
    try:
        print(locate(SandboxSettings().cache_dir).path)
    except ConfigurationError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
