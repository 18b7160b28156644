"""Finds a suitable runsc: on PATH, in the cache, or downloaded from Debian into the cache.

`python -m codealign.sandbox.gvisor` does this ahead of time. `make setup` calls it so that a run needs no network.
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
"""Oldest release whose namespaces isolate. In 20221219 (Debian 12), unshare(CLONE_NEWNS) succeeds without effect."""
_SUITE = "trixie"
_RELEASE = re.compile(r"^runsc version (?:release-|0\.0~)?(\d{8})(?:\.\d+)?", re.MULTILINE)

log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Runsc:
    """A usable runsc binary."""

    path: Path
    release: int
    """Release date as a number: 20240729."""
    platforms: tuple[str, ...] = ("systrap", "ptrace")
    """Platforms that it offers; names as in `runners.runsc.PLATFORMS`."""


class Unusable(Exception):
    """A binary that must not be used; the message says why."""


def parse_release(output: str) -> int:
    """Parse the release from the output of `runsc --version`.

    Raises:
        Unusable: The output contains no release, or one whose namespaces do not isolate.
    """
    match = _RELEASE.search(output)
    if match is None:
        first = output.strip().splitlines()[:1]
        raise Unusable(f"no release in the output of runsc --version: {' '.join(first)!r}")
    release = int(match[1])
    if release < OLDEST_RELEASE:
        raise Unusable(
            f"release {release} is too old: before {OLDEST_RELEASE} unshare(CLONE_NEWNS) succeeds inside gVisor and "
            "isolates nothing, so executions could read each other's files"
        )
    return release


def examine(path: Path) -> Runsc:
    """Determine the release of a binary.

    Raises:
        Unusable: The binary does not run, or must not be used.
    """
    try:
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"cannot be executed: {error}") from error
    release = parse_release(done.stdout)
    # Offered by releases of 2026; unknown flags are refused.
    with_flag = [str(path), "--systrap-disable-fast-path", "--version"]
    is_known = subprocess.run(with_flag, capture_output=True, timeout=30, check=False).returncode == 0
    return Runsc(path, release, ("systrap", *(("systrap-no-fast-path",) if is_known else ()), "ptrace"))


def _download(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as folder:
        unpacked = Path(folder)
        debian.unpack("runsc", _SUITE, unpacked)
        # A rename within one directory is atomic, even if another process downloads at the same time.
        (unpacked / "usr" / "bin" / "runsc").rename(place)


def locate(cache: Path) -> Runsc:
    """Find or download the binary.

    Args:
        cache: The project's cache directory.

    Raises:
        ConfigurationError: No usable binary was found or downloaded; the message contains a command to get one.
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
    """Find or download the binary to where the sandbox service looks for it, and print its path."""
    try:
        print(locate(SandboxSettings().cache_dir).path)
    except ConfigurationError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
