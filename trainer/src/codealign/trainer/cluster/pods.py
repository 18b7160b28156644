"""Why a training's pods do not run, from their Kubernetes status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codealign.trainer.cluster.resource import seconds_since

_PATIENCE_SECONDS = 30.0  # beyond the grace period
_HOPELESS_WAITS = frozenset(
    {
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"),
    }
)


@dataclass(frozen=True)
class Trouble:
    """A problem that keeps a pod from running."""

    reason: str
    """Reason, as Kubernetes names it."""
    message: str
    """A sentence for people, with the pod's name."""


def troubles(pods: Iterable[Mapping[str, Any]]) -> list[Trouble]:
    """Return the first problem of each pod that has one."""
    return [found for pod in pods if (found := _trouble(pod))]


def _trouble(pod: Mapping[str, Any]) -> Trouble | None:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    told = pod["metadata"].get("deletionTimestamp")
    if told and seconds_since(told) > _PATIENCE_SECONDS:
        node = (pod.get("spec") or {}).get("nodeName", "unknown")
        return Trouble(
            "PodDoesNotEnd",
            f"pod {name} is terminating, but node {node} does not confirm that it has stopped. It may still write, so "
            "it is not replaced. If the node is lost for good, delete the node, or the pod with --force",
        )
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(
                condition.get("reason", "Unschedulable"),
                f"pod {name} cannot be scheduled: {condition.get('message', 'no reason given')}",
            )
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS_WAITS:
            said = waiting.get("message") or "no reason given"
            # Kubernetes alternates between the two while it retries a pull.
            reason = "ImagePullBackOff" if waiting["reason"] == "ErrImagePull" else waiting["reason"]
            return Trouble(reason, f"pod {name} does not start: {waiting['reason']}: {said}")
    return None


def running(pods: Iterable[Mapping[str, Any]]) -> int:
    """Count the running pods that are not being terminated."""
    return sum(
        (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
        for pod in pods
    )


def last_words(pods: Sequence[Mapping[str, Any]]) -> str:
    """Return the last message of the pod that failed last, or an empty string."""
    said: list[tuple[str, str]] = []
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses", []):
            ended = (container.get("state") or {}).get("terminated") or {}
            if ended.get("exitCode"):
                lines = [line for line in (ended.get("message") or "").splitlines() if line.strip()]
                reason = f"{ended['reason']}, " if ended.get("reason") not in (None, "Error") else ""
                words = f": {lines[-1].strip()[:500]}" if lines else ""
                text = f"pod {pod['metadata']['name']} ended with {reason}status {ended['exitCode']}{words}"
                said.append((ended.get("finishedAt") or "", text))
    return max(said)[1] if said else ""


def warning(events: Iterable[Mapping[str, Any]]) -> str:
    """Return the last warning event of a Job (for example, pods that a quota forbids), or an empty string."""
    bad = [each for each in events if each.get("type") == "Warning"]
    bad.sort(key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
    return str(bad[-1].get("message", "")) if bad else ""


def condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return a Job's condition of this type if it is true."""
    for each in (job.get("status") or {}).get("conditions", []):
        if each["type"] == kind and each["status"] == "True":
            found: Mapping[str, Any] = each
            return found
    return None
