"""Runs as the service sees them: created, started, paused, resumed, cancelled, taken up again after a restart.

The data is the state: a run is its Run record and its RunEvent records, the last of which says what it does. One
coordinator works on a run at a time, by the store's lease; every append of its work carries the lease's token.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.clients import Clients
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound, describe
from codealign.common.logs import get_logger
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.config import GENERATING, run_records, stage_configs, with_defaults
from codealign.coordinator.ground.faults import Refused, RunFailed, RunStopped, of_service
from codealign.coordinator.ground.tally import Progress, from_counts
from codealign.coordinator.runs.publishing import publish
from codealign.coordinator.runs.selection import Selection
from codealign.coordinator.ground.store import PATIENT, RunStore
from codealign.coordinator.runs.walk import Walk
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)
MIN_PREFIX = 6


@dataclass
class ActiveRun:
    """A run that this coordinator works on."""

    record: pb.Record
    progress: Progress = field(default_factory=Progress)
    message: str = ""
    stopping: bool = False
    task: asyncio.Task[None] | None = None

    def gate(self) -> None:
        """Raises RunStopped once the run is to stop."""
        if self.stopping:
            raise RunStopped("the run is to stop")


class Supervisor:
    """All runs of the store."""

    def __init__(self, settings: CoordinatorSettings, clients: Clients, benchmarks: BenchmarkTexts) -> None:
        self._settings, self._clients, self._benchmarks = settings, clients, benchmarks
        self._active: dict[str, ActiveRun] = {}

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Take up what was running; at the end let what is in flight finish and hand the runs back."""
        if self._settings.reads_only:
            yield
            return
        recovery = asyncio.create_task(self._recover())
        try:
            yield
        finally:
            recovery.cancel()
            for active in self._active.values():
                active.stopping = True
            tasks = [active.task for active in self._active.values() if active.task]
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=self._settings.drain_seconds)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    async def _recover(self) -> None:
        async for record in self._scan(dataset.ScanRequest(kind=pb.KIND_RUN)):
            event = await self._last_event(record.id)
            if event is not None and event.run_event.state == pb.RUN_STATE_RUNNING and record.id not in self._active:
                log.info("run_taken_up", run_id=record.id)
                self._start(record)

    async def prepare(self, given: pb.Run) -> tuple[pb.Run, list[str]]:
        """The configuration with everything filled in, and what a person should know.

        Raises:
            InvalidArgument: Names what is wrong.
            NotFound: The collection holds no seed.
        """
        run = with_defaults(given)
        run.selection.forbidden_texts_sha256 = self._benchmarks.sha256
        for stage in ("", *(f"{stage}_" for stage in GENERATING)):
            choice: pb.ModelChoice = getattr(run, f"{stage}model")
            if stage and not choice.model:
                continue
            request = inf.GetModelRequest(name=choice.model)
            try:
                model = (await self._clients.call(self._clients.inference.GetModel, request)).model
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:  # no name, and several are loaded
                    raise InvalidArgument(f"config.{stage}model.model", str(error.details())) from error
                raise of_service(error, "inference") from error
            if choice.revision and choice.revision != model.revision:
                raise InvalidArgument(
                    f"config.{stage}model.revision",
                    f"inference serves {model.name} at revision {model.revision[:12]}, not {choice.revision[:12]}",
                )
            choice.model, choice.revision = model.name, model.revision
        request_seeds = dataset.ScanRequest(kind=pb.KIND_SEED, collection=run.seeds.collection, page_size=1)
        try:
            seeds = await self._clients.call(self._clients.dataset.Scan, request_seeds)
        except grpc.aio.AioRpcError as error:
            raise of_service(error, "dataset") from error
        if not seeds.records:
            raise NotFound(
                f"collection {run.seeds.collection!r} holds no seeds; collect some: codealign seeds collect PATH"
            )
        return run, _notes(run)

    async def create(self, given: pb.Run) -> tuple[api.RunStatus, bool]:
        """Start a run, or go on with the same one where it stopped; True if it was there."""
        self._must_work()
        run, _ = await self.prepare(given)
        config, record = run_records(run)
        existed = record.id in await RunStore(self._clients, "").get([record.id])
        async with RunStore(self._clients, record.id).flushing() as store:
            kept = (await store.append_all([config, record]))[1]
        event = await self._last_event(record.id)
        if record.id not in self._active and (event is None or event.run_event.state != pb.RUN_STATE_SUCCEEDED):
            await self._record_event(record.id, pb.RUN_STATE_RUNNING, "started" if not existed else "started again")
            self._start(kept)
        return await self.status(record.id), existed

    async def find(self, text: str) -> pb.Record:
        """A run by its id, its id's first digits, or its name.

        Raises:
            NotFound: No run, or several, match.
        """
        if not text:
            raise InvalidArgument("run", "name a run: its id, the id's first digits, or its name")
        matches = [
            record
            async for record in self._scan(dataset.ScanRequest(kind=pb.KIND_RUN))
            if record.run.name == text or (len(text) >= MIN_PREFIX and record.id.startswith(text))
        ]
        if len(matches) != 1:
            known = "no run matches" if not matches else f"{len(matches)} runs match"
            raise NotFound(f"{known} {text!r}; see `codealign ls` for the ids")
        return matches[0]

    async def list(self) -> list[api.RunStatus]:
        """Every run, newest first."""
        ids = [record.id async for record in self._scan(dataset.ScanRequest(kind=pb.KIND_RUN))]
        statuses = [await self.status(run_id) for run_id in ids]
        return sorted(statuses, key=lambda status: status.created_at.ToNanoseconds(), reverse=True)

    async def pause(self, record: pb.Record) -> None:
        """Stop starting work; wait until what is in flight is finished."""
        active = self._must_be_active(record, "paused")
        active.stopping = True
        if active.task:
            await asyncio.wait([active.task])
        if (event := await self._last_event(record.id)) and event.run_event.state == pb.RUN_STATE_RUNNING:
            await self._record_event(record.id, pb.RUN_STATE_PAUSED, "paused; `codealign resume` goes on")

    async def cancel(self, record: pb.Record) -> None:
        """Stop at once; what is finished is kept."""
        active = self._active.get(record.id)
        event = await self._last_event(record.id)
        if active is None and (event is None or event.run_event.state == pb.RUN_STATE_SUCCEEDED):
            raise FailedPrecondition(f"run {record.id[:12]} has ended: it cannot be cancelled")
        if active and active.task:
            active.task.cancel()
            await asyncio.wait([active.task])
        await self._record_event(record.id, pb.RUN_STATE_CANCELLED, "cancelled; what is finished is kept")

    async def resume(self, record: pb.Record) -> None:
        """Go on, after a pause, a failure or a cancellation; nothing to do where it runs or has succeeded."""
        self._must_work()
        event = await self._last_event(record.id)
        done = event is not None and event.run_event.state == pb.RUN_STATE_SUCCEEDED
        if record.id in self._active or done:
            return
        await self._record_event(record.id, pb.RUN_STATE_RUNNING, "resumed")
        self._start(record)

    def _must_work(self) -> None:
        if self._settings.reads_only:
            raise FailedPrecondition("this coordinator takes no runs up: CODEALIGN_COORDINATOR_READS_ONLY is set")

    async def status(self, run_id: str) -> api.RunStatus:
        """The run as it is now."""
        active = self._active.get(run_id)
        if active is not None:
            return self._to_wire(active.record, pb.RUN_STATE_RUNNING, active.message, active.progress)
        store = RunStore(self._clients, run_id)
        there = await store.get([run_id])
        event = await self._last_event(run_id)
        body = event.run_event if event else pb.RunEvent(state=pb.RUN_STATE_FAILED, message="never started")
        progress = from_counts(await store.count())
        status = self._to_wire(there[run_id], body.state, body.message, progress)
        status.version = body.version
        return status

    def _to_wire(
        self, record: pb.Record, state: pb.RunState.ValueType, message: str, progress: Progress
    ) -> api.RunStatus:
        return api.RunStatus(
            id=record.id,
            config=record.run,
            state=state,
            message=message,
            stages=progress.to_wire(),
            created_at=record.provenance.created_at,
            notes=_notes(record.run),
        )

    def _must_be_active(self, record: pb.Record, what: str) -> ActiveRun:
        active = self._active.get(record.id)
        if active is None:
            raise FailedPrecondition(f"run {record.id[:12]} is not running: it cannot be {what}")
        return active

    def _start(self, record: pb.Record) -> None:
        active = ActiveRun(record)
        self._active[record.id] = active
        active.task = asyncio.create_task(self._work(active))

    async def _work(self, active: ActiveRun) -> None:
        """Work on a run until it ends, and record how it ended."""
        run_id = active.record.id
        try:
            outcome = await self._outcome(active)
            if outcome is not None:
                await self._record_event(run_id, *outcome)
                log.info("run_ended", run_id=run_id, state=pb.RunState.Name(outcome[0]), message=outcome[1])
        finally:
            self._active.pop(run_id, None)

    async def _outcome(self, active: ActiveRun) -> tuple[pb.RunState.ValueType, str, str] | None:
        """State, message and version; None where whoever stopped the run records it (a pause, a drain)."""
        outcome: tuple[pb.RunState.ValueType, str, str] | None = None
        try:
            outcome = await self._work_under_lease(active)
        except* RunStopped:
            outcome = None
        except* (RunFailed, Refused) as group:
            outcome = (pb.RUN_STATE_FAILED, str(_first(group)), "")
        except* grpc.aio.AioRpcError as group:
            error = _first(group)
            assert isinstance(error, grpc.aio.AioRpcError)
            outcome = (pb.RUN_STATE_FAILED, describe(error), "")
        except* Exception as group:
            log.exception("run_failed", run_id=active.record.id, exc_info=group)
            error = _first(group)
            outcome = (pb.RUN_STATE_FAILED, f"unexpected {type(error).__name__}: {error}; see the log", "")
        return outcome

    async def _work_under_lease(self, active: ActiveRun) -> tuple[pb.RunState.ValueType, str, str]:
        record = active.record
        if record.run.selection.forbidden_texts_sha256 != self._benchmarks.sha256:
            raise RunFailed("the benchmark files are not those that the run was created with: set the same ones")
        async with self._lease(active) as token:
            async with RunStore(self._clients, record.id, token).flushing() as store:
                configs = stage_configs(record.run)
                await store.append_all([record, *configs.all()])
                walk = Walk(
                    record,
                    configs,
                    store,
                    self._clients,
                    self._benchmarks,
                    active.progress,
                    self._settings,
                    active.gate,
                )
                draws = await walk.all_seeds()
                active.message = "selecting rows"
                rows = await Selection(walk).choose(draws)
                active.message = "publishing"
                version = await publish(self._clients, record, rows)
        if not rows:
            return pb.RUN_STATE_SUCCEEDED, "no response passed and met the rules: there is nothing to publish", ""
        return pb.RUN_STATE_SUCCEEDED, f"{rows} row{'' if rows == 1 else 's'}", version

    @contextlib.asynccontextmanager
    async def _lease(self, active: ActiveRun) -> AsyncIterator[dataset.LeaseToken]:
        """Hold the run's lease, renewed as long as the block runs; the block is cancelled when it is lost."""
        seconds = self._settings.lease_seconds
        request = dataset.AcquireLeaseRequest(
            name=f"run/{active.record.id}", holder=self._settings.lease_holder, ttl_seconds=seconds
        )
        active.message = "waiting for the run's lease"
        response = await self._clients.call(self._clients.dataset.AcquireLease, request, retry=PATIENT)
        active.message = ""
        token = dataset.LeaseToken(name=response.lease.name, token=response.lease.token)

        async def renew() -> None:
            while True:
                await asyncio.sleep(seconds / 3)
                again = dataset.RenewLeaseRequest(lease=token, ttl_seconds=seconds)
                await self._clients.call(self._clients.dataset.RenewLease, again, retry=PATIENT)

        async with asyncio.TaskGroup() as tasks:
            renewal = tasks.create_task(renew())
            yield token
            renewal.cancel()
        with contextlib.suppress(grpc.aio.AioRpcError):
            release = dataset.ReleaseLeaseRequest(lease=token)
            await self._clients.call(self._clients.dataset.ReleaseLease, release)

    async def _record_event(self, run_id: str, state: pb.RunState.ValueType, message: str, version: str = "") -> None:
        last = await self._last_event(run_id)
        async with RunStore(self._clients, run_id).flushing() as store:
            await store.append(
                pb.Record(
                    kind=pb.KIND_RUN_EVENT,
                    parents=[run_id],
                    attempt=last.attempt + 1 if last else 0,
                    run_event=pb.RunEvent(state=state, message=message, version=version),
                )
            )

    async def _last_event(self, run_id: str) -> pb.Record | None:
        request = dataset.ScanRequest(kind=pb.KIND_RUN_EVENT, parent_id=run_id)
        events = [record async for record in self._scan(request)]
        return max(events, key=lambda record: record.attempt, default=None)

    def _scan(self, request: dataset.ScanRequest) -> AsyncIterator[pb.Record]:
        return RunStore(self._clients, "").scan(request)


def _notes(run: pb.Run) -> list[str]:
    """What a person should know of a run before and while it works."""
    if run.selection.forbidden_texts_sha256:
        return []
    return ["no benchmark files are set: seeds and rows are not checked for benchmark text"]


def _first(error: BaseException) -> BaseException:
    """The first leaf of nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
