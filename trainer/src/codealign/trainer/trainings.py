"""The trainings of one machine, which run one at a time in order of submission."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator

import grpc

from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import Clients
from codealign.common.errors import CodeAlignError, Unavailable, describe
from codealign.common.health import Readiness
from codealign.common.logs import get_logger
from codealign.common.metrics import watch_disk
from codealign.trainer import machine
from codealign.trainer.capacity import Capacity
from codealign.trainer.estimate import estimate
from codealign.trainer.library import Entry, Library, no_such
from codealign.trainer.metrics import ENDED, TrainingMeter
from codealign.trainer.model_files import read_model_files
from codealign.trainer.preparing import Place, prepare
from codealign.trainer.process import TrainingProcess
from codealign.trainer.publishing import publish
from codealign.trainer.settings import TrainerSettings
from codealign.trainer.sft.progress import Outcome, read_outcome

log = get_logger(__name__)

PENDING, RUNNING_STATE = api.TRAINING_STATE_PENDING, api.TRAINING_STATE_RUNNING
SUCCEEDED, FAILED = api.TRAINING_STATE_SUCCEEDED, api.TRAINING_STATE_FAILED
CANCELLED = api.TRAINING_STATE_CANCELLED

_WATCH_SECONDS = 0.2
_LOOK_UP_SECONDS = 1.0


class Trainings:
    """Accepts trainings, runs them one after the other, and reports their state.

    Args:
        settings: The service's settings.
        clients: Clients of the dataset and inference services, if configured.
        readiness: Signals the shutdown, which ends watches.
    """

    def __init__(self, settings: TrainerSettings, clients: Clients, readiness: Readiness) -> None:
        self._settings = settings
        self._readiness = readiness
        self._clients = clients
        self._library = Library(settings.data_dir)
        watch_disk("trainings", settings.data_dir)
        self._capacity = Capacity(clients, settings.unload_wait_seconds)
        self._entries = {entry.training.id: entry for entry in self._library.load()}
        self._changed: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._submitting = asyncio.Lock()
        self._current: tuple[str, asyncio.Task[None]] | None = None
        device = settings.device
        if device == "auto":
            device = "cuda" if machine.gpus() else "cpu"
        self._place = Place(
            library=self._library,
            cache_dir=settings.cache_dir,
            device=device,
            threads=lambda workers: settings.threads or max(1, machine.cores() // workers),
            micro_batch_size=settings.micro_batch_size,
            max_restarts=settings.max_restarts,
        )

    async def run(self) -> None:
        """Run pending trainings until cancelled; first resume one that was running when the service stopped."""
        while True:
            waiting = [entry for entry in self._entries.values() if entry.training.state in (RUNNING_STATE, PENDING)]
            waiting.sort(key=lambda entry: (entry.training.state == PENDING, _created_at(entry)))
            if not waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._run_one(waiting[0])

    async def submit(self, given: api.TrainingSpec) -> tuple[api.Training, bool]:
        """Accept a training or find an existing one; one that failed or was cancelled resumes from its last checkpoint.

        Returns:
            The training, and whether it existed already.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition, Unavailable: As documented in the contract.
        """
        entry, needs = await prepare(given, self._place, self._clients)
        async with self._submitting:
            known = self._entries.get(entry.training.id)
            if known and not _to_do_again(known):
                return _copy(known), True
            if self._current is None and _trained(entry) is None:  # a running training's memory will be free by then
                for note in await self._capacity.ensure_fits(entry.job, needs):
                    entry.note(note)
            if known:
                entry.training.created_at.CopyFrom(known.training.created_at)
                for note in known.training.notes:
                    entry.note(note)
            entry.training.estimate.CopyFrom(await self._capacity.estimate(entry.job, needs))
            self._library.save(entry)
            self._entries[entry.training.id] = entry
            self._notify(entry)
            self._wake.set()
            return _copy(entry), known is not None

    async def get(self, training_id: str) -> api.Training:
        """Return a training's current state.

        Raises:
            NotFound: There is no training with this id.
        """
        return _copy(self._find(training_id))

    async def all(self) -> list[api.Training]:
        """Return all trainings, newest first."""
        entries = sorted(self._entries.values(), key=_created_at, reverse=True)
        return [_copy(entry) for entry in entries]

    async def watch(self, training_id: str) -> AsyncGenerator[api.Training]:
        """Yield a training's current state, then every change until it ends.

        Raises:
            NotFound: There is no training with this id.
            Unavailable: The service is stopping.
        """
        self._find(training_id)
        last = None
        while True:
            event = self._changed.setdefault(training_id, asyncio.Event())
            now = _copy(self._find(training_id))
            if now != last:
                yield now
                last = now
            if self._find(training_id).ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_UP_SECONDS):
                    await event.wait()
                    await asyncio.sleep(_WATCH_SECONDS)  # batch changes that follow at once
            if self._readiness.reason == "draining":
                raise Unavailable(
                    "the training service is stopping; the training resumes when it restarts: watch it again"
                )

    async def cancel(self, training_id: str) -> api.Training:
        """Cancel a training; do nothing if it has ended."""
        entry = self._find(training_id)
        if entry.ended:
            return _copy(entry)
        step = entry.training.checkpoint_step
        kept = f"the checkpoint of step {step} is kept; submit again to continue from it" if step else ""
        self._end(entry, CANCELLED, f"cancelled; {kept or 'there was no checkpoint yet'}")
        if self._current and self._current[0] == training_id:
            task = self._current[1]
            task.cancel()
            await asyncio.wait({task})
        return _copy(entry)

    async def _run_one(self, entry: Entry) -> None:
        task = asyncio.create_task(self._train(entry))
        self._current = (entry.training.id, task)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # the service is stopping: its successor resumes the training
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            self._current = None
        if not task.cancelled() and (error := task.exception()):
            log.error("training_failed", training_id=entry.training.id, exc_info=error)
            message = error.message if isinstance(error, CodeAlignError) else f"{type(error).__name__}: {error}"
            self._end(entry, FAILED, message)

    async def _train(self, entry: Entry) -> None:
        outcome = None
        if entry.training.state == PENDING and (outcome := _trained(entry)) is None:
            await self._ensure_fits(entry)
            # Before it counts as running, since a service that is killed then takes an outcome for this attempt's.
            entry.job.outcome_file.unlink(missing_ok=True)
        elif outcome is None:  # an earlier service process started it
            outcome = read_outcome(entry.job.outcome_file)
        while outcome is None:
            self._set(entry, RUNNING_STATE, "training")
            process = await self._run_process(entry)
            outcome = read_outcome(entry.job.outcome_file)
            if outcome is None and not self._may_go_on(entry, process):
                return
        if outcome.state == "failed":
            self._end(entry, FAILED, outcome.message)
        else:
            await self._finish(entry, outcome)

    async def _ensure_fits(self, entry: Entry) -> None:
        files = await asyncio.to_thread(read_model_files, entry.job.model)
        needs = estimate(files, entry.training.spec, rows_at_once=entry.job.micro_batch_size, device=entry.job.device)
        for note in await self._capacity.ensure_fits(entry.job, needs):
            entry.note(note)
        entry.training.estimate.CopyFrom(await self._capacity.estimate(entry.job, needs))

    async def _run_process(self, entry: Entry) -> TrainingProcess:
        """Run the program until it ends."""
        entry.job.outcome_file.unlink(missing_ok=True)
        starts = entry.reader.progress.starts
        process = await TrainingProcess.start(entry.job, self._library.folder(entry.training.id) / "job.json")
        status, meter = None, TrainingMeter(entry)
        try:
            while status is None:
                status = await process.wait(self._settings.follow_seconds)
                if entry.refresh():
                    meter.update(entry)
                    self._note_restart(entry, starts)
                    self._notify(entry)
        finally:
            meter.end()
            await process.stop()
        return process

    def _note_restart(self, entry: Entry, starts: int) -> None:
        progress = entry.reader.progress
        if progress.starts > starts + 1:
            entry.note(f"a worker died; all workers restarted from {_from(progress.resumed_step)}")

    def _may_go_on(self, entry: Entry, process: TrainingProcess) -> bool:
        """Return whether a training whose program died may restart; end the training if not."""
        status, place = process.status, f"see its log, {entry.job.output / 'log.txt'}"
        if status >= 0:
            if entry.job.workers > 1 and (killed := process.worker_signal()):  # torchrun has restarted them already
                times = entry.job.max_restarts + 1
                self._end(
                    entry, FAILED, _killed(entry, f"a worker of the training program {_by(killed)}", times, place)
                )
            else:
                words = process.last_words()[:500]
                self._end(entry, FAILED, f"the training program ended with status {status}: {words}; {place}")
            return False
        how = f"the training program {_by(-status)}"
        entry.deaths += 1
        if entry.deaths > self._settings.max_restarts:
            self._end(entry, FAILED, _killed(entry, how, entry.deaths, place))
            return False
        entry.note(f"{how} and restarted from {_from(entry.training.checkpoint_step)}")
        return True

    async def _finish(self, entry: Entry, outcome: Outcome) -> None:
        entry.refresh()
        if self._clients.addresses.dataset:
            self._set(entry, RUNNING_STATE, "trained; storing the Checkpoint record in the dataset service")
            try:
                record = await publish(entry, outcome, self._clients, self._settings.cache_dir)
            except grpc.aio.AioRpcError as error:
                self._end(
                    entry, FAILED, f"trained, but the dataset service rejects the Checkpoint record: {describe(error)}"
                )
                return
            entry.training.checkpoint_id = record.id
            if record.checkpoint.artifact_url != entry.job.result.as_uri():
                entry.note(f"the store already has a result of this training: {record.checkpoint.artifact_url}")
        else:
            entry.note("dataset service is not configured: the result has no Checkpoint record")
        entry.training.artifact_url = entry.job.result.as_uri()
        self._end(entry, SUCCEEDED, f"trained for {outcome.steps} steps; load the model from artifact_url")

    def _set(self, entry: Entry, state: api.TrainingState.ValueType, message: str) -> None:
        entry.training.state, entry.training.message = state, message
        self._library.save(entry)
        self._notify(entry)

    def _end(self, entry: Entry, state: api.TrainingState.ValueType, message: str) -> None:
        entry.training.ClearField("seconds_left")
        # A full disk is the likeliest cause of failure: report the state even if it cannot be saved.
        with contextlib.suppress(CodeAlignError):
            self._set(entry, state, message)
        self._notify(entry)
        ENDED.labels(api.TrainingState.Name(state).removeprefix("TRAINING_STATE_").lower()).inc()
        log.info("training_ended", training_id=entry.training.id, state=api.TrainingState.Name(state), message=message)

    def _find(self, training_id: str) -> Entry:
        entry = self._entries.get(training_id)
        if entry is None:
            raise no_such(training_id)
        return entry

    def _notify(self, entry: Entry) -> None:
        event = self._changed.pop(entry.training.id, None)
        if event:
            event.set()


def _to_do_again(entry: Entry) -> bool:
    if entry.training.state == SUCCEEDED:
        return not entry.job.result.is_dir()  # the result was removed
    return entry.training.state in (FAILED, CANCELLED)


def _trained(entry: Entry) -> Outcome | None:
    """Return the success of a training whose record could not be stored, or that was cancelled before it was."""
    outcome = read_outcome(entry.job.outcome_file)
    return outcome if outcome and outcome.state == "succeeded" and entry.job.result.is_dir() else None


def _copy(entry: Entry) -> api.Training:
    training = api.Training()
    training.CopyFrom(entry.training)
    return training


def _created_at(entry: Entry) -> int:
    return entry.training.created_at.ToNanoseconds()


def _by(killed: int) -> str:
    hint = " (SIGKILL: often the kernel's out-of-memory killer)" if killed == signal.SIGKILL else ""
    return f"was killed by signal {killed}{hint}"


def _killed(entry: Entry, how: str, times: int, place: str) -> str:
    return (
        f"{how} ({times} times in all): free memory, set spec.gradient_checkpointing or spec.lora, or lower "
        f"spec.max_length, and submit again; training continues from {_from(entry.training.checkpoint_step)}; {place}"
    )


def _from(step: int) -> str:
    return f"the checkpoint of step {step}" if step else "the beginning"
