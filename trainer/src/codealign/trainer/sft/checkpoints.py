"""Checkpoints on disk: atomic, of one training, with only the newest kept.

A checkpoint is written to a temporary directory and renamed when it is completely on disk. Its label names the training
and lists its files, so that training never resumes from another training's or a damaged checkpoint.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

from codealign.trainer.sft.job import TrainingError

SENT = "CODEALIGN_TRAINER_SENT"
"""Variable that is set if each pod has its own disk and checkpoints are uploaded: a file with the step of the last
uploaded checkpoint."""
PARTIAL = "partial"
LABEL = "codealign.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointFolder:
    """The checkpoints of one training.

    Args:
        folder: Directory of the checkpoints.
        training_id: The training's id.
        sent: File with the step of the last uploaded checkpoint, if checkpoints are uploaded.
    """

    def __init__(self, folder: Path, training_id: str, sent: Path | None = None) -> None:
        self._folder = folder
        self._training_id = training_id
        self._sent = sent
        self._committed = 0
        self.rows = ""
        """Digest of the rows in their order, if known. Checkpoints of other rows are not resumed then."""

    @property
    def leaves(self) -> bool:
        """Whether checkpoints are uploaded; other pods then have their parts of them elsewhere."""
        return self._sent is not None

    @property
    def partial(self) -> Path:
        """Temporary directory of the next checkpoint."""
        return self._folder / PARTIAL

    def path(self, step: int) -> Path:
        """Return the directory of a step's checkpoint."""
        return self._folder / f"checkpoint-{step}"

    def prepare(self) -> None:
        """Create the directory and remove an earlier process's unfinished checkpoint."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.partial, ignore_errors=True)

    def newest(self) -> int:
        """Return the step of the newest complete checkpoint of the same rows. 0: there is none.

        Raises:
            TrainingError: The directory has a checkpoint of another training.
        """
        return self._newest(other_rows=False)

    def newest_of_other_rows(self) -> int:
        """Return the step of the newest complete checkpoint of other rows or another order. 0: there is none.

        Another release may order or encode the rows differently. To continue from its checkpoint would train some rows
        twice in an epoch and others never.

        Raises:
            TrainingError: The directory has a checkpoint of another training.
        """
        return self._newest(other_rows=True)

    def _newest(self, *, other_rows: bool) -> int:
        newest = 0
        for step in self._steps():
            label = self._label(step)
            if label is None:
                continue
            if label.get("training_id") != self._training_id:
                raise TrainingError(
                    f"{self.path(step)} is a checkpoint of another training ({label.get('about', 'unknown')}): choose "
                    "another output folder, or move the checkpoint away"
                )
            if (bool(self.rows) and label.get("rows") != self.rows) == other_rows:
                newest = max(newest, step)
        return newest

    def commit(self, step: int, about: str) -> None:
        """Rename the finished checkpoint into place, and remove older ones.

        Args:
            step: The checkpoint's step.
            about: Description of the training, for people.
        """
        written = self.partial / f"checkpoint-{step}"
        files = {str(file.relative_to(written)): file.stat().st_size for file in written.rglob("*") if file.is_file()}
        label = {
            "training_id": self._training_id,
            "rows": self.rows,
            "about": about,
            "step": step,
            "files": files,
        }
        (written / LABEL).write_text(json.dumps(label, indent=1, sort_keys=True))
        _sync_tree(written)
        self._committed = step
        target = self.path(step)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
        written.rename(target)
        _sync(self._folder)
        for other in self._steps():
            if other != step:
                shutil.rmtree(self.path(other), ignore_errors=True)
        shutil.rmtree(self.partial, ignore_errors=True)

    def sent(self) -> int:
        """Return the step of the last uploaded checkpoint. 0: there is none, or checkpoints are not uploaded."""
        try:
            return int(self._sent.read_text()) if self._sent else 0
        except (OSError, ValueError):  # the file is being written
            return 0

    def unsent(self) -> int:
        """Return the step of this process's checkpoint that is still being uploaded. 0: there is none."""
        # The step that was sent is later than the committed one if the training started over.
        return self._committed if self.leaves and self._committed != self.sent() else 0

    def abandon(self) -> None:
        """Remove the unfinished checkpoint."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def size(self) -> int:
        """Return the size of the newest checkpoint in bytes. 0: there is none."""
        step = max(self._steps(), default=0)
        return sum(file.stat().st_size for file in self.path(step).rglob("*") if file.is_file()) if step else 0

    def free(self) -> int:
        """Return the free bytes of the disk."""
        return shutil.disk_usage(self._folder).free

    def _steps(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return [int(match[1]) for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name))]

    def _label(self, step: int) -> dict[str, object] | None:
        """Return the label of a complete checkpoint; None if files are missing or truncated."""
        folder = self.path(step)
        try:
            label: dict[str, object] = json.loads((folder / LABEL).read_bytes())
            files = label["files"]
            if isinstance(files, dict) and all((folder / name).stat().st_size == files[name] for name in files):
                return label
        except (OSError, ValueError, KeyError):
            pass
        return None


def says_full(error: BaseException) -> bool:
    """Return whether an error, or its cause, reports a full disk."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if "No space left" in str(seen) or "os error 28" in str(seen) or "File too large" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _sync_tree(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
