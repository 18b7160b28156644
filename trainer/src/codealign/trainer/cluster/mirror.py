"""Training state at a URL, as an alternative to a volume shared by operator, service and pods.

<artifacts_url>/trainings/<id>/  the same layout as in `codealign.trainer.library`, except for
    checkpoints/checkpoint-<step>-<start>/  one directory per start of the pods, so that files of an earlier start are
                                            never taken for files of this one
        codealign.json                      the label, written last: lists the files of all pods with their sizes
        part-<pod>.json                     files that a pod has uploaded, written when the upload is complete
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from codealign.common.errors import ConfigurationError
from codealign.trainer.library import Entry, Library
from codealign.trainer.sft.checkpoints import LABEL

JOB, STATE, PROGRESS, OUTCOME, MODEL, CHECKPOINTS = (
    *("job.json", "state.json", "progress.jsonl", "outcome.json"),
    *("model", "checkpoints"),
)
_SMALL = (JOB, STATE, PROGRESS, OUTCOME)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)-[0-9a-f]+")


class MirrorError(OSError):
    """The storage failed; a retry may succeed."""


class Remote:
    """A directory at an fsspec URL.

    Args:
        url: The directory; it need not exist.

    Raises:
        ConfigurationError: The URL's scheme is unknown, or its file system is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            # Other processes write here too, so listings must not be cached.
            self._system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"artifacts_url {url}: {error}; use an s3:// URL with codealign-trainer[s3], or gs:// with [gcs]"
            ) from None
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._system, LocalFileSystem)

    def below(self, name: str) -> Remote:
        """Return a subdirectory."""
        made = copy.copy(self)  # shares the connection pool between threads
        made.url, made._root = f"{self.url}/{name}", f"{self._root}/{name}"
        return made

    def marks(self) -> dict[str, str]:
        """Return a version mark for each file, which differs once the file has changed."""
        keys = ("size", "ETag", "LastModified", "mtime", "created", "ino")
        return {
            name: " ".join(str(info.get(key, "")) for key in keys)
            for name, info in self._listed("").items()
            if info["type"] == "file"
        }

    def folders(self, name: str) -> list[str]:
        """Return the names of a directory's subdirectories."""
        return [found for found, info in self._listed(name).items() if info["type"] == "directory"]

    def sizes(self, name: str) -> dict[str, int]:
        """Return the size in bytes of every file below a directory, by relative path."""
        with self._explained(name):
            try:
                found: Mapping[str, Any] = self._system.find(self._at(name), detail=True)
            except FileNotFoundError:
                return {}
            start = len(self._at(name)) + 1
            return {path[start:]: int(info["size"]) for path, info in found.items()}

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""
        with self._explained(name):
            return bool(self._system.isfile(self._at(name)))

    def read(self, name: str) -> bytes | None:
        """Return a small file's content, or None if it does not exist."""
        with self._explained(name):
            try:
                content: bytes = self._system.cat_file(self._at(name))
            except FileNotFoundError:
                return None
            return content

    def fetch(self, name: str, target: Path) -> None:
        """Download a file.

        Raises:
            FileNotFoundError: The file does not exist.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(name):
            self._system.get_file(self._at(name), str(target))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._explained(name, creates=True):
            self._make_room(name)
            self._system.pipe_file(self._at(name), content)

    def send(self, source: Path, name: str) -> None:
        """Upload a file.

        Raises:
            FileNotFoundError: The local file does not exist.
        """
        if not source.is_file():
            raise FileNotFoundError(source)
        with self._explained(name, creates=True):
            self._make_room(name)
            self._system.put_file(str(source), self._at(name))

    def remove(self, name: str) -> None:
        """Remove a file or a directory tree, if it exists."""
        with self._explained(name), contextlib.suppress(FileNotFoundError):
            self._system.rm(self._at(name), recursive=True)

    def _listed(self, name: str) -> dict[str, Mapping[str, Any]]:
        with self._explained(name):
            try:
                found = self._system.ls(self._at(name), detail=True)
            except FileNotFoundError:
                return {}
            return {info["name"].rstrip("/").rpartition("/")[2]: info for info in found}

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _make_room(self, name: str) -> None:
        if self._local:
            Path(self._at(name)).parent.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _explained(self, name: str, *, creates: bool = False) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not creates:
                raise
            raise MirrorError(f"{self.url}/{name} cannot be written ({error}): check that the bucket exists") from error
        except Exception as error:  # every file system has its own errors and its transport's
            raise MirrorError(f"{self.url}/{name}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Kept:
    """A complete checkpoint."""

    name: str
    """The checkpoint's directory."""
    step: int
    label: bytes
    files: Mapping[str, int]
    """Size in bytes of each file, by path."""


def newest_checkpoint(remote: Remote) -> Kept | None:
    """Return a training's newest complete checkpoint.

    Raises:
        MirrorError: The storage cannot be read.
    """
    found = [
        (int(match[1]), match[0]) for name in remote.folders(CHECKPOINTS) if (match := _CHECKPOINT.fullmatch(name))
    ]
    for step, name in sorted(found, reverse=True):
        folder = f"{CHECKPOINTS}/{name}"
        label = remote.read(f"{folder}/{LABEL}")
        if label is None:
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            files = json.loads(label)["files"]
            there = remote.sizes(folder)
            if all(there.get(path) == size for path, size in files.items()):
                return Kept(name, step, label, files)
    return None


def fetch_checkpoint(remote: Remote, kept: Kept, target: Path) -> None:
    """Download a checkpoint, its label last.

    Raises:
        MirrorError: The storage cannot be read.
        OSError: The disk is full.
    """
    for path in kept.files:
        remote.fetch(f"{CHECKPOINTS}/{kept.name}/{path}", target / path)
    (target / LABEL).write_bytes(kept.label)


def remove_checkpoints(remote: Remote, *, start: str = "", until: int = 0, keep: str = "") -> None:
    """Remove checkpoints.

    Args:
        remote: The training's directory.
        start: Keep this start's checkpoints from step `until` on.
        until: The step.
        keep: A directory to keep.
    """
    for name in remote.folders(CHECKPOINTS):
        match = _CHECKPOINT.fullmatch(name)
        newer = bool(start) and name.endswith(f"-{start}") and match is not None and int(match[1]) >= until
        if name != keep and not newer:
            remote.remove(f"{CHECKPOINTS}/{name}/{LABEL}")  # without a label it does not count as a checkpoint
            remote.remove(f"{CHECKPOINTS}/{name}")
    if not (start or keep):
        remote.remove(CHECKPOINTS)


class MirroredLibrary(Library):
    """Trainings at a URL, with their small files cached on a local disk.

    Args:
        data_dir: Local scratch directory.
        url: URL of the trainings.

    Raises:
        ConfigurationError: The directory cannot be created, or the URL cannot be used.
    """

    def __init__(self, data_dir: Path, url: str) -> None:
        super().__init__(data_dir)
        self._remote = Remote(url).below("trainings")
        self._marks: dict[str, dict[str, str]] = defaultdict(dict)
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def url(self, training_id: str) -> str:
        """Return the URL of a training's directory."""
        return self._remote.below(training_id).url

    def fetch(self, training_id: str) -> None:
        """Download changed small files, and remove local copies of deleted ones.

        Raises:
            MirrorError: The storage cannot be read.
        """
        folder = self.folder(training_id)
        remote = self._remote.below(training_id)
        with self._locks[training_id]:  # an older copy must not replace a newer one
            there, known = remote.marks(), self._marks[training_id]
            for name in _SMALL:
                target = folder / name
                if name not in there:
                    target.unlink(missing_ok=True)
                    known.pop(name, None)
                elif known.get(name) != there[name] or not target.is_file():
                    with contextlib.suppress(FileNotFoundError):  # just removed: the next fetch sees it
                        _replaced(remote, name, target)
                        known[name] = there[name]

    def read(self, training_id: str) -> Entry | None:
        """Return a training, or None if it does not exist or is incomplete."""
        self.fetch(training_id)
        entry = super().read(training_id)
        if entry is None:
            return None
        # The job file has the writer's local directory.
        job = entry.job.model_copy(update={"output": self.folder(training_id)})
        return Entry(entry.training, job, entry.config, entry.deaths)

    def save(self, entry: Entry) -> None:
        """Write a training's state.

        Raises:
            ResourceExhausted: The disk is full.
            MirrorError: The storage cannot be written.
        """
        super().save(entry)
        for name in (JOB, STATE):
            content = (self.folder(entry.training.id) / name).read_bytes()
            self._remote.below(entry.training.id).write(name, content)
        self.fetch(entry.training.id)  # get the progress of an earlier attempt

    def result_url(self, entry: Entry) -> str:
        """Return the URL of the trained model."""
        return f"{self.url(entry.training.id)}/{MODEL}"

    def has_result(self, entry: Entry) -> bool:
        """Return whether the trained model exists."""
        return self._remote.below(entry.training.id).exists(f"{MODEL}/config.json")

    def remove_outcome(self, entry: Entry) -> None:
        """Remove the outcome, so that the training counts as unfinished."""
        self._remote.below(entry.training.id).remove(OUTCOME)
        super().remove_outcome(entry)

    def remove_checkpoints(self, entry: Entry) -> None:
        """Remove the checkpoints, and the local files of the ended training."""
        remove_checkpoints(self._remote.below(entry.training.id))
        self._forget(entry.training.id)

    def remove(self, training_id: str) -> None:
        """Remove all files of a training."""
        self._remote.remove(training_id)
        self._forget(training_id)

    def _forget(self, training_id: str) -> None:
        with self._locks[training_id]:
            super().remove(training_id)
            self._marks.pop(training_id, None)


def library_of(data_dir: Path, artifacts_url: str) -> Library:
    """Return the library of a cluster's trainings: at a URL if one is set, else on a volume."""
    return MirroredLibrary(data_dir, artifacts_url) if artifacts_url else Library(data_dir)


def _replaced(remote: Remote, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
        draft = Path(folder) / name
        remote.fetch(name, draft)
        draft.replace(target)
