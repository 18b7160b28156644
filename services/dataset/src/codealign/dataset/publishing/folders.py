"""Storage of versions: a directory for each, on any fsspec URL, written atomically and only once."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from codealign.common.errors import (
    CodeAlignError,
    ConfigurationError,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from codealign.common.logs import get_logger

log = get_logger(__name__)

MANIFEST = "manifest.json"
_PARTIAL = ".partial-"
_ABANDONED_SECONDS = 24 * 3600.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
RETRY_AFTER_SECONDS = 30.0


class VersionFolders:
    """Directories of all versions.

    On a local disk, a version is written to a temporary directory and renamed. Other file systems have no rename, so
    the manifest is written last, and a directory without a manifest is not a version. Either way, a killed process
    leaves no partial version.

    Args:
        url: Parent of the version directories: a path, or a URL such as `s3://bucket/path`.
        scratch: Local directory for versions being written, if `url` is not local.

    Raises:
        ConfigurationError: The URL's scheme is unknown or not installed, or the directory cannot be created.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"versions_url {url}: {error}; install codealign-dataset with its extra (s3, gcs) or use another URL"
            ) from None
        self._root = self._root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self._scratch = Path(self._root) if self._local else scratch
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"versions_url {url}: cannot create {self._scratch} ({error.strerror})") from None

    @property
    def directory(self) -> Path | None:
        """Parent of the version directories, or None if they are not on a local disk."""
        return Path(self._root) if self._local else None

    def url(self, name: str) -> str:
        """Return the URL of a version's directory."""
        return str(self._fs.unstrip_protocol(f"{self._root}/{name}"))

    def exists(self, name: str) -> bool:
        """Return whether a complete version exists."""
        with self._translated():
            self._fs.invalidate_cache()
            return bool(self._fs.exists(f"{self._root}/{name}/{MANIFEST}"))

    def manifest(self, name: str) -> dict[str, Any]:
        """Return the content of a version's manifest."""
        with self.open(name, MANIFEST) as file:
            content: dict[str, Any] = json.load(file)
        return content

    @contextlib.contextmanager
    def partial(self) -> Iterator[Path]:
        """Create a local directory to write a version in. It is removed at the end unless it was placed."""
        with self._translated():
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._sweep()
            folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self._scratch))
            folder.chmod(0o755)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def place(self, partial: Path, name: str) -> bool:
        """Turn a written directory into the version. Return False if another process was faster."""
        with self._translated():
            if self.exists(name):
                return False
            return self._rename(partial, name) if self._local else self._upload(partial, name)

    @contextlib.contextmanager
    def open(self, name: str, path: str) -> Iterator[IO[bytes]]:
        """Open a file of a version.

        Raises:
            NotFound: The file does not exist.
        """
        with self._translated():
            try:
                file = self._fs.open(f"{self._root}/{name}/{path}", "rb")
            except FileNotFoundError:
                raise NotFound(
                    f"version {name} has no file {path} at {self.url(name)}: it was moved or deleted; publish it again"
                ) from None
            with file:
                yield file

    def _rename(self, partial: Path, name: str) -> bool:
        for path in sorted(partial.rglob("*")):
            _sync(path)
        target = Path(self._root) / name
        if target.exists():
            if self.exists(name):
                return False
            raise FailedPrecondition(
                f"{target} exists but has no {MANIFEST}, so it is not a version; move it away and publish again"
            )
        try:
            partial.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        _sync(target.parent)
        return True

    def _upload(self, partial: Path, name: str) -> bool:
        files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == MANIFEST):
            target = f"{self._root}/{name}/{path.relative_to(partial).as_posix()}"
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(path), target)
        return True

    def _sweep(self) -> None:
        """Remove leftovers of killed processes. After a day, no other replica can still be writing them."""
        for folder in self._scratch.glob(f"{_PARTIAL}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                    log.info("abandoned_partial_version_removed", folder=str(folder))
                    shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except CodeAlignError:
            raise
        except OSError as error:
            if error.errno in _FULL:
                raise ResourceExhausted(
                    f"the disk of {self._root} is full; nothing was published: free space there, then publish again",
                    retry_after=RETRY_AFTER_SECONDS,
                ) from error
            raise Unavailable(f"{self._root}: {error}", retry_after=RETRY_AFTER_SECONDS) from error


def _sync(path: Path) -> None:
    """Flush a file or directory before the rename that makes it visible, so that a power cut preserves their order."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
