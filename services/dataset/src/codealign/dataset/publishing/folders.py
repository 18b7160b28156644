"""Where versions lie: a folder for each, on any fsspec URL, written once and whole or not at all."""

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
    """The folders of all versions.

    On a local disk a version is written beside its place and renamed into it. Elsewhere there is no rename, so its
    manifest is written last, and a folder without one is no version. Either way a kill leaves no half version.

    Args:
        url: The folder of folders: a path, or `s3://bucket/path` and the like.
        scratch: A local folder for what is being written, where `url` is not local.

    Raises:
        ConfigurationError: The URL's kind is not known or not installed, or the folder cannot be made.
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
            raise ConfigurationError(f"versions_url {url}: cannot make {self._scratch} ({error.strerror})") from None

    def url(self, name: str) -> str:
        """A version's folder."""
        return str(self._fs.unstrip_protocol(f"{self._root}/{name}"))

    def exists(self, name: str) -> bool:
        """It is there, whole."""
        with self._translated():
            self._fs.invalidate_cache()
            return bool(self._fs.exists(f"{self._root}/{name}/{MANIFEST}"))

    def manifest(self, name: str) -> dict[str, Any]:
        """What a version's manifest says."""
        with self.open(name, MANIFEST) as file:
            content: dict[str, Any] = json.load(file)
        return content

    @contextlib.contextmanager
    def partial(self) -> Iterator[Path]:
        """A local folder to write a version in; gone at the end, unless it was placed."""
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
        """Make a written folder the version; False where another was quicker."""
        with self._translated():
            if self.exists(name):
                return False
            return self._rename(partial, name) if self._local else self._upload(partial, name)

    @contextlib.contextmanager
    def open(self, name: str, path: str) -> Iterator[IO[bytes]]:
        """A version's file.

        Raises:
            NotFound: It is not there.
        """
        with self._translated():
            try:
                file = self._fs.open(f"{self._root}/{name}/{path}", "rb")
            except FileNotFoundError:
                raise NotFound(
                    f"version {name} has no file {path} at {self.url(name)}: it was moved or removed; publish it again"
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
                f"{target} is in the way: it has no {MANIFEST}, so it is no version; move it away and publish again"
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
        """Remove what a killed process left. A day: no other replica can still be writing it."""
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
                    f"the disk of {self._root} is full; nothing was published: make room there, then publish again",
                    retry_after=RETRY_AFTER_SECONDS,
                ) from error
            raise Unavailable(f"{self._root}: {error}", retry_after=RETRY_AFTER_SECONDS) from error


def _sync(path: Path) -> None:
    """Have a file or folder on the disk before the rename that makes it visible: a power cut keeps their order."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
