"""Uploads from a pod with its own disk during training: progress and checkpoints.

All pods contribute to a checkpoint: each uploads what its workers wrote and then confirms it, and pod 0 writes the
label after all confirmations. Without the label it does not count, and the program starts no new one
(`CheckpointFolder.unsent`).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from codealign.trainer.cluster import mirror
from codealign.trainer.cluster.mirror import MirrorError, Remote
from codealign.trainer.sft.checkpoints import LABEL, CheckpointFolder
from codealign.trainer.sft.job import Job

_LOOK_SECONDS = 0.5
_PROGRESS_SECONDS = 3.0
_LONGEST_PAUSE_SECONDS = 30.0


class Sender:
    """Uploads in background threads until stopped.

    Args:
        remote: The training's directory.
        job: The training, with this pod's directories.
        index: This pod's index.
        pods: Number of pods.
        start: Identifies this start of all pods.
        sent_file: File for the step of the last uploaded checkpoint, read by the program on pod 0.
    """

    def __init__(self, remote: Remote, job: Job, index: int, pods: int, start: str, sent_file: Path) -> None:
        self._remote, self._job = remote, job
        self._index, self._pods, self._start = index, pods, start
        self._sent_file = sent_file
        self._folder = CheckpointFolder(job.checkpoints, job.training_id)
        self._last = self._folder.newest()  # the downloaded checkpoint
        self._progress = b""
        self._stopping, self._finishing = threading.Event(), threading.Event()
        actions = [self._send_checkpoint, *([self._send_progress] if index == 0 else [])]
        self._threads = [threading.Thread(target=self._again_and_again, args=(each,), daemon=True) for each in actions]

    def __enter__(self) -> Sender:
        self._sent_file.write_text(str(self._last))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()  # without waiting: a pod that is terminated must stop at once

    def stop(self) -> None:
        """Stop uploading."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def finish(self, seconds: float) -> None:
        """Upload what is left, up to a timeout, then stop."""
        self._finishing.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._stopping.set()

    def _again_and_again(self, action: Callable[[], None]) -> None:
        pause = _LOOK_SECONDS
        while not self._stopping.is_set():
            last = self._finishing.is_set()
            try:
                action()
                pause = _LOOK_SECONDS
                if last:
                    return
            except MirrorError as error:
                print(f"worker: {error}; retrying", file=sys.stderr, flush=True)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except OSError:  # the program removed the file: it has a newer checkpoint, or the result
                if last:
                    return
            self._stopping.wait(pause)

    def _send_progress(self) -> None:
        content = self._job.progress_file.read_bytes()
        content = content[: content.rfind(b"\n") + 1]
        if content == self._progress:
            return
        self._remote.write(mirror.PROGRESS, content)
        self._progress = content
        # The whole file is sent each time, so send longer files less often.
        self._stopping.wait(_PROGRESS_SECONDS * max(1.0, len(content) / 1e6) if not self._finishing.is_set() else 0.0)

    def _send_checkpoint(self) -> None:
        step = self._folder.newest()
        # Not only later steps: the program may have started over, since it could not use the downloaded checkpoint.
        if step in (0, self._last):
            return
        name, here = f"{mirror.CHECKPOINTS}/checkpoint-{step}-{self._start}", self._folder.path(step)
        label = json.loads((here / LABEL).read_bytes())
        for path in label["files"]:
            if self._stopping.is_set():
                return
            self._remote.send(here / path, f"{name}/{path}")
        if self._index:
            self._remote.write(f"{name}/{_part(self._index)}", json.dumps({"files": label["files"]}).encode())
        else:
            for other in range(1, self._pods):
                if (files := self._part_of(name, other)) is None:
                    return
                label["files"] = {**files, **label["files"]}
            self._remote.write(f"{name}/{LABEL}", json.dumps(label, indent=1, sort_keys=True).encode())
            self._sent_file.write_text(str(step))
            mirror.remove_checkpoints(self._remote, start=self._start, until=step)
        self._last = step

    def _part_of(self, name: str, pod: int) -> dict[str, int] | None:
        """Wait for another pod's confirmation and return its files; None if stopped first."""
        while not self._stopping.is_set():
            if content := self._remote.read(f"{name}/{_part(pod)}"):
                files: dict[str, int] = json.loads(content)["files"]
                return files
            self._stopping.wait(_LOOK_SECONDS)
        return None


def _part(pod: int) -> str:
    return f"part-{pod}.json"
