"""Checkpoints on the disk: whole or not there, of this training alone, the newest one kept.

A checkpoint is written into a folder that no reader looks at and renamed when all of it is on the disk. Its label
names the training and lists its files, so that neither a stranger's nor a damaged one is resumed from.
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
"""Variable that is set where each pod has a disk of its own, from which checkpoints are sent on: a file with the step
of the last one that was."""
PARTIAL = "partial"
LABEL = "codealign.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointFolder:
    """The checkpoints of one training.

    Args:
        folder: Where they lie.
        training_id: Whose they are.
        sent: Where checkpoints are sent on from here, a file with the step of the last one that was.
    """

    def __init__(self, folder: Path, training_id: str, sent: Path | None = None) -> None:
        self._folder = folder
        self._training_id = training_id
        self._sent = sent
        self._committed = 0

    @property
    def leaves(self) -> bool:
        """Checkpoints are sent on from here, and other pods have their parts of them elsewhere."""
        return self._sent is not None

    @property
    def partial(self) -> Path:
        """Where the next one is written."""
        return self._folder / PARTIAL

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self._folder / f"checkpoint-{step}"

    def prepare(self) -> None:
        """Make the folder; what an earlier process left unfinished goes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.partial, ignore_errors=True)

    def newest(self) -> int:
        """The step of the newest whole checkpoint. 0: there is none.

        Raises:
            TrainingError: A checkpoint of another training lies here.
        """
        newest = 0
        for step in self._steps():
            label = self._label(step)
            if label is None:
                continue
            if label.get("training_id") != self._training_id:
                raise TrainingError(
                    f"{self.path(step)} is a checkpoint of another training ({label.get('about', 'unknown')}): choose "
                    "another output folder, or move that one away"
                )
            newest = max(newest, step)
        return newest

    def commit(self, step: int, about: str) -> None:
        """Give what was written its name, and remove the older ones.

        Args:
            step: The step after which it was taken.
            about: The training, for people.
        """
        written = self.partial / f"checkpoint-{step}"
        files = {str(file.relative_to(written)): file.stat().st_size for file in written.rglob("*") if file.is_file()}
        label = {"training_id": self._training_id, "about": about, "step": step, "files": files}
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
        """The step of the last checkpoint that is there where they are sent. 0: there is none, or none is sent."""
        try:
            return int(self._sent.read_text()) if self._sent else 0
        except (OSError, ValueError):  # it is being written
            return 0

    def unsent(self) -> int:
        """The step of a checkpoint of this process that is still being sent. 0: there is none."""
        return self._committed if self.leaves and self._committed > self.sent() else 0

    def abandon(self) -> None:
        """Remove what was written of the next one."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def size(self) -> int:
        """Bytes of the newest checkpoint. 0: there is none."""
        step = max(self._steps(), default=0)
        return sum(file.stat().st_size for file in self.path(step).rglob("*") if file.is_file()) if step else 0

    def free(self) -> int:
        """Bytes that are free where they lie."""
        return shutil.disk_usage(self._folder).free

    def _steps(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return [int(match[1]) for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name))]

    def _label(self, step: int) -> dict[str, object] | None:
        """The label of a whole checkpoint; None where files are missing or cut."""
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
    """Whether an error, or what caused it, says that a disk is full."""
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
