"""How a pod gets the files of its training: from a shared volume, or through its own disk."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from codealign.common.errors import CodeAlignError, FailedPrecondition, InvalidArgument, NotFound
from codealign.common.model_identity import revision
from codealign.trainer.cluster import mirror
from codealign.trainer.cluster.mirror import MirrorError, Remote
from codealign.trainer.cluster.sending import Sender
from codealign.trainer.sft.checkpoints import SENT
from codealign.trainer.sft.job import Job, read_job
from codealign.trainer.sft.progress import Outcome, outcome_json, outcome_of, read_outcome
from codealign.trainer.sources import fetch_model

T = TypeVar("T")

_SETTLE_SECONDS = 60.0  # time to upload the last checkpoint of a failed training
_FIRST_POD_SECONDS = 20.0  # pod 0 reports the failure; if it hangs, another pod does
_LONGEST_PAUSE_SECONDS = 30.0


def say(text: str) -> None:
    """Print a line to the pod's log."""
    print(f"worker: {text}", file=sys.stderr, flush=True)


class PodFiles:
    """Files on a volume that all pods share; nothing is transferred.

    Args:
        path: The job file.
    """

    retry_seconds = 0.5
    """Seconds between two attempts to connect to pod 0; each attempt also checks for the outcome."""
    poll_seconds = 0.2
    """Seconds between two checks for the outcome."""
    start = ""
    """Identifies this start of all pods; pod 0's value counts."""
    variables: Mapping[str, str] = {}
    """Environment variables for the training program."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job: Job

    @property
    def name(self) -> str:
        """Identity of this gathering; all pods of a training must agree on it."""
        return self.job.training_id

    async def begin(self) -> None:
        """Read the job file.

        Raises:
            TrainingError: The job file is invalid.
            OSError: The job file cannot be fetched.
        """
        self.job = read_job(self.path)

    async def outcome(self) -> Outcome | None:
        """Return the training's outcome, or None if it has not ended."""
        return read_outcome(self.job.outcome_file)

    async def fetch(self) -> Outcome | None:
        """Fetch the files that the training program reads.

        Returns:
            An outcome if they can never be fetched, else None.

        Raises:
            OSError: They cannot be fetched now.
        """
        return None

    @contextlib.contextmanager
    def sent(self, start: str) -> Iterator[None]:  # noqa: ARG002 - for subclasses
        """Upload what the training program writes while the block runs."""
        yield

    async def settle(self) -> Outcome | None:
        """Make the program's end visible to all pods.

        Returns:
            The program's outcome, or None if it left none.
        """
        return await self.outcome()


class OwnDisk(PodFiles):
    """Files on a disk that no other pod sees; they are transferred through a URL.

    Args:
        path: Local path of the job file. Its directory becomes the training's; existing content is deleted.
        url: URL of the training's directory.
        cache: Cache directory for downloaded models.
        index: This pod's index.
        pods: Number of pods.

    Raises:
        ConfigurationError: The URL cannot be used.
    """

    retry_seconds = 2.0
    poll_seconds = 2.0

    def __init__(self, path: Path, url: str, cache: Path, *, index: int = 0, pods: int = 1) -> None:
        super().__init__(path)
        self._remote = Remote(url)
        self._cache = cache
        self._index, self._pods = index, pods
        self._checkpoint: str | None = None
        self._sender: Sender | None = None
        self.start = secrets.token_hex(4)
        self.variables = {SENT: str(path.parent / "sent")}

    @property
    def name(self) -> str:
        """The training and the checkpoint: pods that start from different checkpoints must not train together."""
        return f"{self.job.training_id}@{self._checkpoint or 'beginning'}"

    async def begin(self) -> None:
        """Download the job file."""

        def fetch() -> None:
            shutil.rmtree(self.path.parent, ignore_errors=True)  # the URL has the authoritative files
            with contextlib.suppress(FileNotFoundError):  # `read_job` reports it
                self._remote.fetch(mirror.JOB, self.path)

        await apart(lambda: insisted(fetch, seconds=_SETTLE_SECONDS))
        self.job = read_job(self.path).model_copy(update={"output": self.path.parent})

    async def outcome(self) -> Outcome | None:
        """Return the outcome from the URL; on pod 0, its own program's outcome first."""
        if self._index == 0 and (own := read_outcome(self.job.outcome_file)):
            return own
        return await apart(lambda: insisted(self._outcome_there, seconds=_SETTLE_SECONDS))

    async def fetch(self) -> Outcome | None:
        """Download the model, the newest checkpoint and, on pod 0, the progress so far, unless they are present."""
        try:
            await apart(lambda: insisted(self._fetch, seconds=_SETTLE_SECONDS))
        except (NotFound, FailedPrecondition, InvalidArgument) as error:
            failure = Outcome("failed", error.message)
            await apart(lambda: insisted(lambda: self._announce(failure)))
            return failure
        except CodeAlignError as error:
            raise MirrorError(error.message) from error
        return None

    @contextlib.contextmanager
    def sent(self, start: str) -> Iterator[None]:
        """Send on progress and checkpoints while the program runs."""
        self._sender = Sender(self._remote, self.job, self._index, self._pods, start, Path(self.variables[SENT]))
        try:
            with self._sender:
                yield
        finally:
            self._sender = None

    async def settle(self) -> Outcome | None:
        """Upload the remaining files of the ended program, its outcome last."""
        outcome = read_outcome(self.job.outcome_file)
        if outcome is None:
            return await self.outcome()
        if outcome.state == "succeeded":
            return await apart(lambda: self._deliver(outcome))
        return await apart(lambda: self._fail(outcome))

    def _fetch(self) -> None:
        kept = mirror.newest_checkpoint(self._remote)
        name = kept.name if kept else ""
        if name != self._checkpoint:
            folder = self.job.checkpoints
            shutil.rmtree(folder, ignore_errors=True)
            if kept:
                say(f"fetching the checkpoint of step {kept.step}")
                try:
                    mirror.fetch_checkpoint(self._remote, kept, folder / f"checkpoint-{kept.step}")
                except FileNotFoundError as error:  # pod 0 of an earlier start has just written a newer one
                    raise MirrorError(f"the checkpoint of step {kept.step} was removed ({error})") from error
            self._checkpoint = name
        if self._index == 0:
            mirror.remove_checkpoints(self._remote, keep=name)
            with contextlib.suppress(FileNotFoundError):
                self._remote.fetch(mirror.PROGRESS, self.job.progress_file)
        model = fetch_model(self.job, self._cache)
        self.job = self.job.model_copy(update={"model": model})
        self.path.write_text(self.job.model_dump_json(indent=1))

    def _outcome_there(self) -> Outcome | None:
        content = self._remote.read(mirror.OUTCOME)
        return outcome_of(content) if content else None

    def _announce(self, outcome: Outcome) -> None:
        if self._remote.read(mirror.OUTCOME) is None:
            self._remote.write(mirror.OUTCOME, outcome_json(outcome))

    def _deliver(self, outcome: Outcome) -> Outcome:
        """Upload the trained model, then its outcome; retry until both are written."""
        if self._sender:
            self._sender.stop()
        result = self.job.result
        whole = Outcome(**{**vars(outcome), "revision": revision(result, self._cache)})
        insisted(lambda: self._remote.remove(mirror.MODEL))  # remains of an earlier start that was interrupted
        for file in sorted(path for path in result.rglob("*") if path.is_file()):
            name = f"{mirror.MODEL}/{file.relative_to(result).as_posix()}"
            insisted(lambda file=file, name=name: self._remote.send(file, name))  # type: ignore[misc]
        self._send_progress()
        insisted(lambda: self._remote.write(mirror.OUTCOME, outcome_json(whole)))
        insisted(lambda: mirror.remove_checkpoints(self._remote))
        return whole

    def _fail(self, outcome: Outcome) -> Outcome:
        """Upload the last checkpoint, from which another attempt continues, then the failure."""
        if self._sender:
            self._sender.finish(_SETTLE_SECONDS)
        if self._index == 0:
            self._send_progress()
        else:
            deadline = time.monotonic() + _FIRST_POD_SECONDS
            while time.monotonic() < deadline and insisted(self._outcome_there) is None:
                time.sleep(1.0)
        insisted(lambda: self._announce(outcome))
        return outcome

    def _send_progress(self) -> None:
        if self.job.progress_file.is_file():
            insisted(lambda: self._remote.send(self.job.progress_file, mirror.PROGRESS))


def insisted(action: Callable[[], T], *, seconds: float = 0.0) -> T:
    """Retry an action while the storage fails.

    Args:
        action: The action; must be safe to repeat.
        seconds: Timeout. 0: no limit.

    Raises:
        MirrorError: The storage failed until the timeout.
    """
    began, pause = time.monotonic(), 1.0
    while True:
        try:
            return action()
        except MirrorError as error:
            if seconds and time.monotonic() - began > seconds:
                raise
            say(f"{error}; retrying")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def apart(call: Callable[[], T]) -> T:
    """Run a slow call in a daemon thread, which does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failed = None, None
        try:
            result = call()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=work, daemon=True).start()
    return await done
