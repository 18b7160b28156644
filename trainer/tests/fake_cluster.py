"""An in-memory Kubernetes API with conflicts, status subresources and cascading deletion.

Also simulates what a cluster does by itself: a Job controller, and pods that train.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codealign.trainer.cluster import mirror, worker
from codealign.trainer.cluster.api import ApiRefusal, Conflict
from codealign.trainer.cluster.mirror import Remote
from codealign.trainer.cluster.resource import PLURAL, Object, now
from codealign.trainer.sft.checkpoints import LABEL
from codealign.trainer.sft.job import Job
from codealign.trainer.sft.progress import Outcome, ProgressWriter, outcome_json, read_outcome, write_outcome

Objects = list[Object]


class Killed(BaseException):
    """The operator's process was killed here."""


class FakeCluster:
    """An in-memory `Cluster`; see the module."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.created: list[tuple[str, str]] = []
        self.calls = 0
        self.kill_at: tuple[int, bool] | None = None
        """Number of the call at which the caller is killed, and whether the call has taken effect."""
        self.refuse: Callable[[str, str], ApiRefusal | None] = lambda _verb, _kind: None
        self._numbers = itertools.count(1)

    async def get(self, kind: str, name: str) -> Object | None:
        found: Object | None = self._call("get", kind, lambda: copy.deepcopy(self.objects.get((kind, name))))
        return found

    async def list(self, kind: str, *, labels: str = "", fields: str = "") -> Objects:
        def found() -> Objects:
            every = [copy.deepcopy(made) for (of, _), made in sorted(self.objects.items()) if of == kind]
            for wanted in filter(None, labels.split(",")):
                key, _, value = wanted.partition("=")
                every = [each for each in every if each["metadata"].get("labels", {}).get(key) == value]
            if fields:
                name = fields.partition("involvedObject.name=")[2]
                every = [each for each in every if each["involvedObject"]["name"] == name]
            return every

        every: Objects = self._call("list", kind, found)
        return every

    async def create(self, kind: str, body: Object) -> Object:
        def make() -> Object:
            made = copy.deepcopy(body)
            name = made["metadata"]["name"]
            if (kind, name) in self.objects:
                raise Conflict(409, f'{kind} "{name}" already exists')
            number = next(self._numbers)
            made["metadata"] |= {"uid": f"uid-{number}", "creationTimestamp": now(), "generation": 1}
            made.pop("status", None)
            self.created.append((kind, name))
            return self._keep(kind, name, made)

        made: Object = self._call("create", kind, make)
        return made

    async def patch(self, kind: str, name: str, change: Object, *, status: bool = False) -> Object | None:
        def patched() -> Object | None:
            there = self.objects.get((kind, name))
            if there is None:
                return None
            wanted = change.get("metadata", {}).get("resourceVersion")
            if wanted and wanted != there["metadata"]["resourceVersion"]:
                raise Conflict(409, "the object has been modified")
            after = _merged(there, change)
            if kind == PLURAL:  # the status is a subresource
                after["status" if not status else "spec"] = there.get("status" if not status else "spec", {})
            if after.get("spec") != there.get("spec"):
                after["metadata"]["generation"] = there["metadata"]["generation"] + 1
            return self._keep(kind, name, after)

        after: Object | None = self._call("patch", kind, patched)
        return after

    async def delete(self, kind: str, name: str, *, uid: str = "") -> None:
        def gone() -> None:
            there = self.objects.get((kind, name))
            if there is None or (uid and there["metadata"]["uid"] != uid):
                return
            if kind in ("jobs", PLURAL):  # pods go before their Job, and owned objects before their FineTuneJob
                there["metadata"].setdefault("deletionTimestamp", now())
            else:
                del self.objects[kind, name]

        self._call("delete", kind, gone)

    def put(self, kind: str, made: Object) -> None:
        """Set a status as a controller would."""
        made["metadata"].setdefault("uid", f"uid-{next(self._numbers)}")
        self._keep(kind, made["metadata"]["name"], made)

    def drop(self, kind: str, name: str) -> None:
        """Remove an object and everything that it owns."""
        uid = self.objects.pop((kind, name))["metadata"]["uid"]
        for (of, what), made in list(self.objects.items()):
            if any(each["uid"] == uid for each in made["metadata"].get("ownerReferences", [])):
                self.drop(of, what)

    def of(self, kind: str) -> Objects:
        return [made for (of, _), made in self.objects.items() if of == kind]

    def _keep(self, kind: str, name: str, made: Object) -> Object:
        made["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.objects[kind, name] = made
        return copy.deepcopy(made)

    def _call(self, verb: str, kind: str, effect: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.kill_at == (self.calls, False):
            raise Killed
        if refusal := self.refuse(verb, kind):
            raise refusal
        answer = effect()
        if self.kill_at == (self.calls, True):
            raise Killed
        return answer


def _merged(there: Any, change: Any) -> Any:
    """Apply a merge patch (RFC 7396)."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    result = copy.deepcopy(there) if isinstance(there, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


class Kubelet:
    """Starts the pods of Jobs, which train for a few steps; call `step` to let time pass.

    Args:
        cluster: The cluster.
        outcome: How trainings end.
    """

    def __init__(self, cluster: FakeCluster, outcome: Outcome) -> None:
        self.cluster, self.outcome = cluster, outcome
        self.trained: list[tuple[str, int]] = []
        """Each start of a training program: the Job's uid, and the step that it continued from."""

    def step(self) -> None:
        for job in list(self.cluster.of("jobs")):
            name = job["metadata"]["name"]
            pods = [pod for pod in self.cluster.of("pods") if pod["metadata"]["labels"]["of"] == job["metadata"]["uid"]]
            if job["metadata"].get("deletionTimestamp"):
                for pod in pods:
                    self.cluster.drop("pods", pod["metadata"]["name"])
                self.cluster.drop("jobs", name)
            elif job["spec"]["suspend"]:
                for pod in pods:
                    self.cluster.drop("pods", pod["metadata"]["name"])
            elif not job.get("status") and not pods:
                self._start(job)
            elif not job.get("status"):
                self._train(job, pods)

    def _start(self, job: Object) -> None:
        for index in range(job["spec"]["completions"]):
            name = job["metadata"]["name"]
            labels = {"batch.kubernetes.io/job-name": name, "of": job["metadata"]["uid"]}
            owner = {"uid": job["metadata"]["uid"], "name": name, "controller": True}
            metadata = {"name": f"{name}-{index}", "labels": labels, "ownerReferences": [owner]}
            self.cluster.put("pods", {"metadata": metadata, "status": {"phase": "Running"}})
        training = self._job(job)
        steps = sorted(int(path.name) for path in training.checkpoints.glob("*"))
        resumed = steps[-1] if steps else 0
        self.trained.append((job["metadata"]["uid"], resumed))
        fields = {"total_steps": 4, "rows": 22, "truncated_rows": 1, "dropped_rows": 0, "trained_tokens": 7}
        ProgressWriter(training.progress_file).write("started", resumed_step=resumed, **fields)

    def _train(self, job: Object, pods: list[Object]) -> None:
        training = self._job(job)
        if training.outcome_file.exists():
            failed = json.loads(training.outcome_file.read_text())["state"] == "failed"
            for pod in pods:
                pod["status"]["phase"] = "Failed" if failed else "Succeeded"
            kind = "Failed" if failed else "Complete"
            condition = {"type": kind, "status": "True", "reason": "PodFailurePolicy", "lastTransitionTime": now()}
            job["status"] = {"conditions": [condition]}
            return
        writer = ProgressWriter(training.progress_file)
        at = max([self.trained[-1][1], *(int(path.name) for path in training.checkpoints.glob("*"))])
        if at < 4:
            fields = {"trained_tokens": 9, "tokens_per_second": 5.0, "seconds_per_step": 0.5}
            writer.write("step", step=at + 1, loss=3.0 - at / 2, learning_rate=1e-5, **fields)
            (training.checkpoints / str(at + 1)).mkdir(parents=True)
            writer.write("checkpoint", step=at + 1)
        else:
            if self.outcome.state == "succeeded":
                training.result.mkdir(exist_ok=True)
                (training.result / "config.json").write_text("{}")
                (training.result / "model.safetensors").write_bytes(b"weights")
            write_outcome(training.outcome_file, self.outcome)

    def _job(self, job: Object) -> Job:
        path = Path(job["spec"]["template"]["spec"]["containers"][0]["args"][0])
        return Job.model_validate_json(path.read_bytes())


class FarKubelet(Kubelet):
    """A Job controller whose pods have their own disks and upload their files.

    Args:
        cluster: The cluster.
        outcome: How trainings end.
        scratch: Folder of the pods' disks.
    """

    def __init__(self, cluster: FakeCluster, outcome: Outcome, scratch: Path) -> None:
        super().__init__(cluster, outcome)
        self._scratch = scratch

    def _start(self, job: Object) -> None:
        training, remote = self._job(job), self._remote(job)
        shutil.rmtree(training.output, ignore_errors=True)
        for name in remote.folders(mirror.CHECKPOINTS):
            (training.checkpoints / name.split("-")[1]).mkdir(parents=True)
        if content := remote.read(mirror.PROGRESS):
            training.output.mkdir(parents=True, exist_ok=True)
            training.progress_file.write_bytes(content)
        super()._start(job)
        self._send(job)

    def _train(self, job: Object, pods: list[Object]) -> None:
        super()._train(job, pods)
        self._send(job)

    def _send(self, job: Object) -> None:
        training, remote = self._job(job), self._remote(job)
        for path in training.checkpoints.glob("*"):
            remote.write(f"{mirror.CHECKPOINTS}/checkpoint-{path.name}-ab/{LABEL}", b"{}")
        for name in ("progress.jsonl", "model/config.json", "model/model.safetensors"):
            if (training.output / name).is_file():
                remote.send(training.output / name, name)
        if outcome := read_outcome(training.outcome_file):
            revision = "5" * 64 if outcome.state == "succeeded" else ""
            remote.write(mirror.OUTCOME, outcome_json(dataclasses.replace(outcome, revision=revision)))

    def _job(self, job: Object) -> Job:
        remote = self._remote(job)
        content = remote.read(mirror.JOB)
        assert content is not None
        return Job.model_validate_json(content).model_copy(update={"output": self._scratch / Path(remote.url).name})

    @staticmethod
    def _remote(job: Object) -> Remote:
        variables = {each["name"]: each["value"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}
        return Remote(variables[worker.ARTIFACTS_URL])
