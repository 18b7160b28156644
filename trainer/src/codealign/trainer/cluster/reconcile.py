"""Reconciliation of one FineTuneJob: read it, its Job and its files, and take the next step.

All state is in those three and every step is idempotent, so the operator can be killed at any moment without loss.

The Job is named after the training, not after the FineTuneJob. Since a training has one directory, only one of several
FineTuneJobs with the same training may run pods; the API server enforces this by rejecting a second Job of that name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from codealign.common.clients import NO_RETRY, RETRYABLE, Clients
from codealign.common.errors import (
    CodeAlignError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    describe,
)
from codealign.common.logs import get_logger
from codealign.trainer.cluster import manifests, metrics, pods, worker
from codealign.trainer.cluster.api import ApiRefusal, Cluster, Conflict
from codealign.trainer.cluster.mirror import MirroredLibrary, MirrorError, library_of
from codealign.trainer.cluster.resource import (
    ATTEMPT_LABEL,
    ENDED,
    PLURAL,
    QUEUE_LABEL,
    RUNNING,
    Object,
    attempt,
    ended,
    seconds_since,
    training_spec,
)
from codealign.trainer.cluster.settings import OperatorSettings
from codealign.trainer.cluster.status import Happening, Status
from codealign.trainer.library import Entry
from codealign.trainer.metrics import ENDED as ENDED_TRAININGS
from codealign.trainer.metrics import TrainingMeter
from codealign.trainer.preparing import Place, prepare
from codealign.trainer.publishing import publish
from codealign.trainer.sft.progress import Outcome, read_outcome

log = get_logger(__name__)

Tell = Callable[[Object, Happening], None]

_OUTCOME_SECONDS = 60.0  # how late a network file system may show another node's file
_NO_PODS_SECONDS = 10.0


class Reconciler:
    """Reconciles FineTuneJobs.

    Args:
        cluster: Client of the namespace.
        settings: The operator's settings.
        template: The training pods' template.
        clients: Clients of the dataset service, if configured.
        tell: Emits an event for a FineTuneJob.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: OperatorSettings,
        template: Mapping[str, Any],
        clients: Clients,
        tell: Tell = lambda _resource, _happening: None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._template = template
        self._clients = clients
        self._tell = tell
        self._library = library_of(settings.data_dir, settings.artifacts_url)
        # Cache of progress files, which are long. It can be lost: they are then read again.
        self._read: dict[str, Entry] = {}
        self._states: dict[str, str] = {}
        """Last known state of each FineTuneJob, for metrics."""
        self._meters: dict[str, TrainingMeter] = {}

    async def reconcile(self, name: str) -> None:
        """Take the next step for a FineTuneJob.

        Raises:
            Unavailable: The API server cannot be reached; the next poll retries.
        """
        with metrics.RECONCILE_SECONDS.time():
            await self._reconcile(name)

    async def _reconcile(self, name: str) -> None:
        resource = await self._cluster.get(PLURAL, name)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            self._forget(name)
            return
        if ended(resource):
            self._measure(name, str(resource["status"]["state"]))
            await self._expire(resource)
            return
        status = Status(resource)
        try:
            await self._next(resource, status)
        except ApiRefusal as error:
            metrics.RECONCILE_ERRORS.labels("api_server").inc()
            status.wait("ApiRefused", error.message, warning=True)
        except MirrorError as error:
            metrics.RECONCILE_ERRORS.labels("storage").inc()
            status.wait("StorageFails", f"{error}; retrying", warning=True)
        except (ResourceExhausted, OSError) as error:
            metrics.RECONCILE_ERRORS.labels("storage").inc()
            status.wait("VolumeFails", f"the training volume cannot be used: {error}", warning=True)
        except Unavailable:
            raise
        except Exception as error:  # a bug: report it in the status, and retry
            metrics.RECONCILE_ERRORS.labels("unexpected").inc()
            log.exception("reconcile_failed", name=name)
            what = f"unexpected {type(error).__name__}: {error}; retrying (see the operator's log)"
            status.wait("OperatorFails", what, warning=True)
        self._measure(name, status.state, self._read.get(status.fields.get("trainingId", "")))
        await self._write(resource, status)

    def _measure(self, name: str, state: str, entry: Entry | None = None) -> None:
        """Update the metrics to a FineTuneJob's state and the progress of its training."""
        before, self._states[name] = self._states.get(name), state
        if state in ENDED and before not in (None, state):
            ENDED_TRAININGS.labels(state.lower()).inc()
        metrics.show_jobs(self._states.values())
        if state != RUNNING:
            self._stop_meter(name)
        elif entry is not None:
            if name not in self._meters:
                self._meters[name] = TrainingMeter(entry)
            self._meters[name].update(entry)

    def _stop_meter(self, name: str) -> None:
        if meter := self._meters.pop(name, None):
            meter.end()

    def _forget(self, name: str) -> None:
        """Remove a FineTuneJob that is gone from the metrics."""
        self._stop_meter(name)
        self._states.pop(name, None)
        metrics.show_jobs(self._states.values())

    async def finalize(self, resource: Object) -> bool:
        """Clean up after a FineTuneJob that is being deleted.

        Returns:
            Whether everything is gone. Files are removed after the pods that might write them.
        """
        self._forget(resource["metadata"]["name"])
        training_id = (resource.get("status") or {}).get("trainingId")
        if not training_id:
            return True
        job = await self._cluster.get("jobs", manifests.job_name(training_id))
        if job and _owner(job) == resource["metadata"]["uid"]:
            await self._cluster.delete("jobs", job["metadata"]["name"], uid=job["metadata"]["uid"])
            return False
        if job or await self._wanted_by_another(resource, training_id):
            return True
        await asyncio.to_thread(self._remove_files, training_id)
        self._read.pop(training_id, None)
        return True

    async def _next(self, resource: Object, status: Status) -> None:
        if status.state in ENDED:
            await self._begin_anew(resource, status)
            return
        if resource["spec"].get("cancel"):
            await self._cancel(resource, status)
            return
        entry = await self._prepared(resource, status)
        if entry is None:
            return
        job = await self._cluster.get("jobs", manifests.job_name(entry.training.id))
        outcome = await asyncio.to_thread(self._outcome, entry, job)
        if outcome and outcome.state == "succeeded":
            await self._finish(entry, outcome, status)
        elif job is None:
            await self._start(resource, entry, status)
        elif not self._is_of(job, resource):
            await self._wait_for_other(job, resource, status)
        elif outcome:
            status.progress(entry)
            status.fail("TrainingFailed", outcome.message)
        else:
            await self._follow(resource, job, entry, status)

    # ---- before the Job runs

    async def _begin_anew(self, resource: Object, status: Status) -> None:
        """Remove what the last attempt left, so that it is not mistaken for the new attempt's."""
        if await self._without_job(resource):
            training_id = status.fields.get("trainingId")
            if training_id and (entry := await asyncio.to_thread(self._library.read, training_id)):
                await asyncio.to_thread(self._remove_failure, entry)
            status.begin_anew()

    async def _cancel(self, resource: Object, status: Status) -> None:
        if await self._without_job(resource):
            step = status.fields.get("checkpointStep")
            kept = f"the checkpoint of step {step} is kept; set spec.cancel: false to continue from it" if step else ""
            status.cancel(f"cancelled; {kept or 'there was no checkpoint yet'}")

    async def _without_job(self, resource: Object) -> bool:
        """Delete the FineTuneJob's Job; return whether it and its pods are gone."""
        training_id = (resource.get("status") or {}).get("trainingId")
        if not training_id:
            return True
        job = await self._cluster.get("jobs", manifests.job_name(training_id))
        if job is None or _owner(job) != resource["metadata"]["uid"]:
            return True
        await self._cluster.delete("jobs", job["metadata"]["name"], uid=job["metadata"]["uid"])
        return False

    async def _prepared(self, resource: Object, status: Status) -> Entry | None:
        training_id = status.fields.get("trainingId", "")
        if status.prepared and (entry := await asyncio.to_thread(self._entry, training_id)):
            return entry
        if status.reason("Prepared") != "Unavailable":  # fetching a model takes time
            spec = resource["spec"]
            status.prepare(False, "Preparing", f"looking for {spec['model']} and {spec['dataset']}", silent=True)
            await self._write(resource, status)
        try:
            place = self._place(resource)
            entry, _ = await prepare(training_spec(resource), place, self._clients)
        except (Unavailable, ResourceExhausted) as error:
            status.prepare(False, "Unavailable", error.message)
            status.wait("NotPrepared", f"{error.message}; retrying", warning=True)
            return None
        except (CodeAlignError, ValueError) as error:
            reason = _REASONS.get(type(error), "CannotBePrepared")
            status.prepare(False, reason, str(error))
            status.fail(reason, str(error))
            return None
        await asyncio.to_thread(self._library.save, entry)
        self._read.pop(entry.training.id, None)
        status.fields.update(trainingId=entry.training.id, rows=entry.training.rows)
        status.prepare(
            True,
            "Found",
            f"found {entry.job.model_name} (revision {entry.job.model_revision[:12]}) and {entry.training.rows} rows "
            f"of {entry.job.dataset_name}",
        )
        # Write the status before creating anything else, so that deletion of the FineTuneJob knows what to remove.
        await self._write(resource, status)
        return entry

    def _place(self, resource: Object) -> Place:
        settings = self._settings
        workers = int(resource["spec"].get("workers", 1))
        per_pod = workers // manifests.pods_of(resource, settings.workers_per_pod)
        threads = settings.threads or max(1, manifests.cpus(self._template) // per_pod)
        return Place(
            library=self._library,
            cache_dir=settings.cache_dir,
            device=settings.device,
            threads=lambda _workers: threads,
            micro_batch_size=settings.micro_batch_size,
            max_restarts=0,  # the Job restarts pods
        )

    async def _start(self, resource: Object, entry: Entry, status: Status) -> None:
        if resource["spec"].get("suspend"):
            status.progress(entry)
            status.suspend("Suspended", "spec.suspend is set: no pods are started")
            return
        count = manifests.pods_of(resource, self._settings.workers_per_pod)
        restarts = self._settings.max_restarts
        made = manifests.job(
            *(resource, entry.job, self._template), pods=count, max_restarts=restarts, variables=self._variables(entry)
        )
        await self._serve(resource, entry.training.id)
        try:
            await self._cluster.create("jobs", made)
        except Conflict:
            return  # another FineTuneJob was faster, or this one before a restart; the next poll reads it
        status.fields.update(jobName=made["metadata"]["name"], pods=count)
        status.wait("JobCreated", f"created Job {made['metadata']['name']} with {count} pods")

    def _variables(self, entry: Entry) -> Mapping[str, str]:
        if not isinstance(self._library, MirroredLibrary):
            return {}
        url = self._library.url(entry.training.id)
        return {worker.ARTIFACTS_URL: url, worker.CACHE_DIR: str(self._settings.cache_dir)}

    async def _serve(self, resource: Object, training_id: str) -> None:
        """Create the Service through which pods find each other."""
        made = manifests.service(resource, training_id)
        name = made["metadata"]["name"]
        there = await self._cluster.get("services", name)
        if there and _owner(there) != resource["metadata"]["uid"]:  # it would be deleted with that owner
            await self._cluster.delete("services", name, uid=there["metadata"]["uid"])
            there = None
        if there is None:
            try:
                await self._cluster.create("services", made)
            except Conflict:
                return  # that Service is being deleted: the next poll creates a new one

    async def _wait_for_other(self, job: Object, resource: Object, status: Status) -> None:
        """Wait for a Job of an earlier attempt, or of another FineTuneJob with the same training."""
        if _owner(job) == resource["metadata"]["uid"] or await self._left_over(job):
            await self._cluster.delete("jobs", job["metadata"]["name"], uid=job["metadata"]["uid"])
            status.wait("JobEnding", "waiting for the pods of an earlier start to end")
            return
        name = _owner_name(job)
        status.wait(
            "SameTraining",
            f"FineTuneJob {name} already runs this training; both will get its result. Delete one of the two",
        )

    async def _left_over(self, job: Object) -> bool:
        if not (pods.condition(job, "Failed") or pods.condition(job, "Complete")):
            return False
        owner = await self._cluster.get(PLURAL, _owner_name(job))
        return owner is None or owner["metadata"]["uid"] != _owner(job) or ended(owner)

    # ---- while the Job runs

    async def _follow(self, resource: Object, job: Object, entry: Entry, status: Status) -> None:
        status.progress(entry)
        status.fields.update(jobName=job["metadata"]["name"], pods=job["spec"]["completions"])
        listed = await self._cluster.list("pods", labels=f"batch.kubernetes.io/job-name={job['metadata']['name']}")
        if failed := pods.condition(job, "Failed"):
            self._job_failed(failed, listed, status)
        elif done := pods.condition(job, "Complete"):
            self._job_complete(done, status)
        elif await self._in_step(resource, job, status):
            await self._serve(resource, entry.training.id)
            await self._say_how_it_runs(job, listed, status)

    async def _in_step(self, resource: Object, job: Object, status: Status) -> bool:
        """Update the Job to the FineTuneJob's current spec; return False if it is suspended."""
        spec, name = resource["spec"], job["metadata"]["name"]
        held, wanted = bool(job["spec"].get("suspend")), bool(spec.get("suspend"))
        queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
        if queue and wanted:
            # Kueue would restart a Job that it has admitted, so delete the Job, which releases its quota.
            await self._cluster.delete("jobs", name, uid=job["metadata"]["uid"])
        elif not queue and held != wanted:
            await self._cluster.patch("jobs", name, {"spec": {"suspend": wanted}})
            held = wanted
        if spec.get("activeDeadlineSeconds") != job["spec"].get("activeDeadlineSeconds"):
            change = {"spec": {"activeDeadlineSeconds": spec.get("activeDeadlineSeconds")}}
            await self._cluster.patch("jobs", name, change)
        if wanted:
            status.suspend(
                "Suspended", "spec.suspend is set: training continues from the last checkpoint once it is unset"
            )
        elif held:
            status.suspend("Queued", f"waiting in Kueue queue {queue}")
        return not (wanted or held)

    async def _say_how_it_runs(self, job: Object, listed: list[Object], status: Status) -> None:
        count, here = job["spec"]["completions"], pods.running(listed)
        if found := pods.troubles(listed):
            status.wait(found[0].reason, found[0].message, warning=True)
        elif here:
            step, total = status.fields.get("step"), status.fields.get("totalSteps")
            where = f"step {step} of {total}" if step else "starting"
            status.run(where if here == count else f"{here} of {count} pods running; {where}")
        elif not listed and seconds_since(job["metadata"]["creationTimestamp"]) > _NO_PODS_SECONDS:
            events = await self._cluster.list("events", fields=f"involvedObject.name={job['metadata']['name']}")
            said = pods.warning(events)
            status.wait("NoPods", f"the Job has no pods: {said or 'Kubernetes reports no reason'}", warning=bool(said))
        else:
            if words := pods.last_words(listed):
                status.wait("PodsEnded", f"pods restart from the last checkpoint; {words}", warning=True)
            else:
                status.wait("PodsStart", "pods are starting")

    def _job_failed(self, failed: Mapping[str, Any], listed: list[Object], status: Status) -> None:
        reason = str(failed.get("reason") or "JobFailed")
        if reason == "PodFailurePolicy" and seconds_since(failed["lastTransitionTime"]) < _OUTCOME_SECONDS:
            status.wait("OutcomeExpected", "the training program has ended: waiting for its outcome file", trained=True)
            return
        words = pods.last_words(listed) or str(failed.get("message", ""))
        advice = {
            "DeadlineExceeded": "the training exceeded spec.activeDeadlineSeconds: raise it",
            "BackoffLimitExceeded": "the pods failed repeatedly: give them more memory, set "
            "spec.gradientCheckpointing or spec.lora, or lower spec.maxLength",
        }.get(reason, str(failed.get("message", "")))
        step = status.fields.get("checkpointStep")
        from_where = f"the checkpoint of step {step}" if step else "the beginning"
        status.fail(
            reason,
            f"{advice} ({words}). Then increase spec.attempt: training continues from {from_where}",
        )

    def _job_complete(self, done: Mapping[str, Any], status: Status) -> None:
        if seconds_since(done["lastTransitionTime"]) < _OUTCOME_SECONDS:
            status.wait("OutcomeExpected", "the pods have succeeded: waiting for the outcome file", trained=True)
            return
        url = self._settings.artifacts_url
        shared = "access to the same storage" if url else "the same volume there"
        where = url or self._settings.data_dir
        status.fail(
            "NoOutcome",
            f"the pods succeeded, but {where} has no outcome: operator and training pods must have {shared}",
        )

    # ---- files and end

    def _entry(self, training_id: str) -> Entry | None:
        """Return a training with its current progress, or None if it does not exist."""
        self._library.fetch(training_id)
        entry = self._read.get(training_id)
        if entry is None or not (self._library.folder(training_id) / "job.json").is_file():
            self._read.pop(training_id, None)
            if (entry := self._library.read(training_id)) is None:
                return None
            self._read[training_id] = entry
        entry.refresh()
        return entry

    def _outcome(self, entry: Entry, job: Object | None) -> Outcome | None:
        """Return the outcome. Without a Job, an outcome that prevents another start is stale and removed."""
        outcome = read_outcome(entry.job.outcome_file)
        if outcome and job is None and self._remove_failure(entry):
            return None
        return outcome

    def _remove_failure(self, entry: Entry) -> bool:
        """Remove an outcome that prevents another start: a failure, or a success whose result is gone."""
        outcome = read_outcome(entry.job.outcome_file)
        if outcome is None or (outcome.state == "succeeded" and self._library.has_result(entry)):
            return False
        self._library.remove_outcome(entry)
        return True

    async def _finish(self, entry: Entry, outcome: Outcome, status: Status) -> None:
        entry = await asyncio.to_thread(self._whole, entry)
        status.progress(entry)
        url = self._library.result_url(entry)
        if self._settings.dataset_address:
            try:
                cache = self._settings.cache_dir
                record = await publish(entry, outcome, self._clients, cache, url=url, retry=NO_RETRY)
            except grpc.aio.AioRpcError as error:
                if error.code() in RETRYABLE or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    message = f"trained, but the Checkpoint record cannot be stored yet: {describe(error)}"
                    status.wait("RecordWaits", message, warning=True, trained=True)
                else:
                    status.fail(
                        "RecordRefused",
                        f"trained, but the dataset service rejects the Checkpoint record: {describe(error)}",
                    )
                return
            status.fields["checkpointId"] = record.id
            if record.checkpoint.artifact_url != url:
                status.note(f"the store already has a result of this training: {record.checkpoint.artifact_url}")
        else:
            status.note("dataset service is not configured: the result has no Checkpoint record")
        status.fields["artifactUrl"] = url
        status.succeed(f"trained for {outcome.steps} steps; load the model from status.artifactUrl")

    def _whole(self, entry: Entry) -> Entry:
        """Read everything again, since a record must not be based on a partly read file."""
        return self._library.read(entry.training.id) or entry

    async def _expire(self, resource: Object) -> None:
        seconds = resource["spec"].get("ttlSecondsAfterFinished")
        at = resource["status"].get("completionTime")
        if seconds is not None and at and seconds_since(at) >= seconds:
            await self._cluster.delete(PLURAL, resource["metadata"]["name"], uid=resource["metadata"]["uid"])

    async def _wanted_by_another(self, resource: Object, training_id: str) -> bool:
        return any(
            (each.get("status") or {}).get("trainingId") == training_id
            and each["metadata"]["uid"] != resource["metadata"]["uid"]
            and not each["metadata"].get("deletionTimestamp")
            for each in await self._cluster.list(PLURAL)
        )

    def _remove_files(self, training_id: str) -> None:
        """Remove all files, or all but a result to which a Checkpoint record may already refer."""
        entry = self._library.read(training_id)
        outcome = read_outcome(entry.job.outcome_file) if entry else None
        if entry and outcome and outcome.state == "succeeded" and self._library.has_result(entry):
            self._library.remove_checkpoints(entry)
        else:
            self._library.remove(training_id)

    async def _write(self, resource: Object, status: Status) -> None:
        if change := status.patch():
            written = await self._cluster.patch(PLURAL, resource["metadata"]["name"], {"status": change}, status=True)
            if written is None:
                return
            resource["status"] = written.get("status") or {}
            status.written(resource["status"])
        happened, status.happenings = status.happenings, []
        for happening in happened:
            self._tell(resource, happening)
            log.info(
                "fine_tune_job",
                name=resource["metadata"]["name"],
                state=status.state,
                reason=happening.reason,
                message=happening.message,
            )

    @staticmethod
    def _is_of(job: Object, resource: Object) -> bool:
        """Return whether the Job belongs to this attempt of the FineTuneJob and is not being deleted."""
        metadata = job["metadata"]
        return (
            _owner(job) == resource["metadata"]["uid"]
            and metadata["labels"].get(ATTEMPT_LABEL) == str(attempt(resource))
            and not metadata.get("deletionTimestamp")
        )


_REASONS: Mapping[type[Exception], str] = {
    InvalidArgument: "InvalidArgument",
    NotFound: "NotFound",
    FailedPrecondition: "FailedPrecondition",
    ValueError: "InvalidArgument",
}


def _controller(made: Object) -> Mapping[str, Any]:
    owners = made["metadata"].get("ownerReferences", [])
    return next((each for each in owners if each.get("controller")), {})


def _owner(made: Object) -> str:
    return str(_controller(made).get("uid", ""))


def _owner_name(made: Object) -> str:
    return str(_controller(made).get("name", "")) or "(unknown)"
