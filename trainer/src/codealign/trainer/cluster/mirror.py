"""What trainings leave, at a URL: in place of a volume that operator, service and pods share.

<artifacts_url>/trainings/<id>/  as the folder of `codealign.trainer.library`, but for
    checkpoints/checkpoint-<step>-<start>/  a start of the pods has folders of its own, so that no part of an earlier
                                            start is taken for one of this
        codealign.json                      the label: written last, it lists every pod's files with their sizes
        part-<pod>.json                     what that pod has sent, written when all of it is there
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
    """The storage does not do what it is asked for; another try may find it better."""


class Remote:
    """A folder at an fsspec URL.

    Args:
        url: The folder; it need not be there yet.

    Raises:
        ConfigurationError: The URL's kind is not known, or not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            # Others write here too, so no listing is remembered.
            self._system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"artifacts_url {url}: {error}; use an s3:// URL with codealign-trainer[s3], or gs:// with [gcs]"
            ) from None
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._system, LocalFileSystem)

    def below(self, name: str) -> Remote:
        """A folder in this one."""
        made = copy.copy(self)  # with the same connections, whatever thread asks
        made.url, made._root = f"{self.url}/{name}", f"{self._root}/{name}"
        return made

    def marks(self) -> dict[str, str]:
        """The files that lie here by their names, each with a text that is another one once it has changed."""
        keys = ("size", "ETag", "LastModified", "mtime", "created", "ino")
        return {
            name: " ".join(str(info.get(key, "")) for key in keys)
            for name, info in self._listed("").items()
            if info["type"] == "file"
        }

    def folders(self, name: str) -> list[str]:
        """The names of the folders in a folder."""
        return [found for found, info in self._listed(name).items() if info["type"] == "directory"]

    def sizes(self, name: str) -> dict[str, int]:
        """Every file below a folder, by its path in there, with its bytes."""
        with self._explained(name):
            try:
                found: Mapping[str, Any] = self._system.find(self._at(name), detail=True)
            except FileNotFoundError:
                return {}
            start = len(self._at(name)) + 1
            return {path[start:]: int(info["size"]) for path, info in found.items()}

    def exists(self, name: str) -> bool:
        """There is such a file."""
        with self._explained(name):
            return bool(self._system.isfile(self._at(name)))

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        with self._explained(name):
            try:
                content: bytes = self._system.cat_file(self._at(name))
            except FileNotFoundError:
                return None
            return content

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file here.

        Raises:
            FileNotFoundError: It is gone.
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
        """Copy a file there.

        Raises:
            FileNotFoundError: It is not here.
        """
        if not source.is_file():
            raise FileNotFoundError(source)
        with self._explained(name, creates=True):
            self._make_room(name)
            self._system.put_file(str(source), self._at(name))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; there need be none."""
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
            raise MirrorError(f"{self.url}/{name} cannot be written ({error}): is there such a bucket?") from error
        except Exception as error:  # each file system has errors of its own, of its transport too
            raise MirrorError(f"{self.url}/{name}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Kept:
    """A whole checkpoint."""

    name: str
    """Its folder."""
    step: int
    label: bytes
    files: Mapping[str, int]
    """Its files' bytes, by their paths."""


def newest_checkpoint(remote: Remote) -> Kept | None:
    """The newest checkpoint of a training of which nothing is missing.

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
    """Copy a checkpoint here; its label comes last.

    Raises:
        MirrorError: It cannot be read.
        OSError: The disk is full.
    """
    for path in kept.files:
        remote.fetch(f"{CHECKPOINTS}/{kept.name}/{path}", target / path)
    (target / LABEL).write_bytes(kept.label)


def remove_checkpoints(remote: Remote, *, start: str = "", until: int = 0, keep: str = "") -> None:
    """Remove checkpoints.

    Args:
        remote: The training's folder.
        start: Of this start only those before a step; of others all.
        until: That step.
        keep: A folder that stays.
    """
    for name in remote.folders(CHECKPOINTS):
        match = _CHECKPOINT.fullmatch(name)
        newer = bool(start) and name.endswith(f"-{start}") and match is not None and int(match[1]) >= until
        if name != keep and not newer:
            remote.remove(f"{CHECKPOINTS}/{name}/{LABEL}")  # half of one is none
            remote.remove(f"{CHECKPOINTS}/{name}")
    if not (start or keep):
        remote.remove(CHECKPOINTS)


class MirroredLibrary(Library):
    """Trainings at a URL, with their small files on a disk that nobody else sees.

    Args:
        data_dir: Scratch.
        url: Where they lie.

    Raises:
        ConfigurationError: The folder cannot be made, or the URL's kind is not known.
    """

    def __init__(self, data_dir: Path, url: str) -> None:
        super().__init__(data_dir)
        self._remote = Remote(url).below("trainings")
        self._marks: dict[str, dict[str, str]] = defaultdict(dict)
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def url(self, training_id: str) -> str:
        """A training's folder."""
        return self._remote.below(training_id).url

    def fetch(self, training_id: str) -> None:
        """Bring the small files up to date; what is gone there goes here.

        Raises:
            MirrorError: The storage cannot be read.
        """
        folder = self.folder(training_id)
        remote = self._remote.below(training_id)
        with self._locks[training_id]:  # an older copy must not take a newer one's place
            there, known = remote.marks(), self._marks[training_id]
            for name in _SMALL:
                target = folder / name
                if name not in there:
                    target.unlink(missing_ok=True)
                    known.pop(name, None)
                elif known.get(name) != there[name] or not target.is_file():
                    with contextlib.suppress(FileNotFoundError):  # removed just now: the next look sees it
                        _replaced(remote, name, target)
                        known[name] = there[name]

    def read(self, training_id: str) -> Entry | None:
        """One training; None where it is not there, or not whole."""
        self.fetch(training_id)
        entry = super().read(training_id)
        if entry is None:
            return None
        # The job file has the folder of whoever wrote it.
        job = entry.job.model_copy(update={"output": self.folder(training_id)})
        return Entry(entry.training, job, entry.config, entry.deaths)

    def save(self, entry: Entry) -> None:
        """Write a training's state.

        Raises:
            ResourceExhausted: The disk is full.
            MirrorError: The storage does not take it.
        """
        super().save(entry)
        for name in (JOB, STATE):
            content = (self.folder(entry.training.id) / name).read_bytes()
            self._remote.below(entry.training.id).write(name, content)
        self.fetch(entry.training.id)  # it may have been trained before

    def result_url(self, entry: Entry) -> str:
        """Where the trained model lies."""
        return f"{self.url(entry.training.id)}/{MODEL}"

    def has_result(self, entry: Entry) -> bool:
        """The trained model is there."""
        return self._remote.below(entry.training.id).exists(f"{MODEL}/config.json")

    def remove_outcome(self, entry: Entry) -> None:
        """Have the training not ended."""
        self._remote.below(entry.training.id).remove(OUTCOME)
        super().remove_outcome(entry)

    def remove_checkpoints(self, entry: Entry) -> None:
        """Remove the checkpoints; of a training that has ended nothing is kept on the disk."""
        remove_checkpoints(self._remote.below(entry.training.id))
        self._forget(entry.training.id)

    def remove(self, training_id: str) -> None:
        """Remove all that it has left."""
        self._remote.remove(training_id)
        self._forget(training_id)

    def _forget(self, training_id: str) -> None:
        with self._locks[training_id]:
            super().remove(training_id)
            self._marks.pop(training_id, None)


def library_of(data_dir: Path, artifacts_url: str) -> Library:
    """The trainings of a cluster: on a volume, or at a URL where one is set."""
    return MirroredLibrary(data_dir, artifacts_url) if artifacts_url else Library(data_dir)


def _replaced(remote: Remote, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
        draft = Path(folder) / name
        remote.fetch(name, draft)
        draft.replace(target)
