"""A release of the chart in its own namespace."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.cluster.kube import KEEP, Forward, Manifest, credentials, kubectl, objects, run, secret, until

CHART = Path(__file__).parents[2] / "charts" / "codealign"
VALUES = Path(__file__).parent / "values.yaml"
SERVICES = ("dataset", "coordinator", "sandbox", "inference", "trainer")
READY_SECONDS = 300.0
CODEALIGN = str(Path(sys.executable).parent / "codealign")


class Release:
    """A release, used as a person would: with the CLI's certificate, through forwarded ports.

    Args:
        name: The release's.
        namespace: Its namespace, which is made.
        values: By path, beside those of the trial and of these tests.
    """

    def __init__(self, name: str, namespace: str, values: Mapping[str, str]) -> None:
        self.name, self.namespace = name, namespace
        self.full = f"{name}-codealign"
        self.values = dict(values)
        self.folder = Path(tempfile.mkdtemp(prefix=f"codealign-{namespace}-"))
        self._forwards: dict[str, Forward] = {}
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Self:
        if KEEP and any(each["metadata"]["name"] == self.namespace for each in objects("namespaces")):
            return self
        kubectl("create", "namespace", self.namespace)
        kubectl("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            channel.close()
        for forward in self._forwards.values():
            forward.close()
        if not KEEP:
            kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    def helm(self, verb: str, *arguments: str, changed: Mapping[str, str] | None = None, timeout: float = 600) -> str:
        """Run `helm VERB` on this release; `install` and `upgrade` with the chart and the values."""
        command = ["helm", verb, self.name]
        if verb in ("install", "upgrade"):
            self.values |= changed or {}
            command += [str(CHART), f"--values={CHART}/values-trial.yaml", f"--values={VALUES}"]
            command += [f"--set={path}={value}" for path, value in self.values.items()]
        return run(*command, f"--namespace={self.namespace}", *arguments, timeout=timeout)

    def get(self, *arguments: str) -> list[Manifest]:
        """Return objects of the namespace."""
        return objects(f"--namespace={self.namespace}", *arguments)

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 300) -> str:
        """Run kubectl in the namespace."""
        return kubectl(f"--namespace={self.namespace}", *arguments, given=given, timeout=timeout)

    def pods(self, *components: str) -> list[Manifest]:
        """Return the release's pods that are not being deleted."""
        selector = f"app.kubernetes.io/instance={self.name}"
        if components:
            selector += f",app.kubernetes.io/component in ({','.join(components)})"
        found = self.get("pods", f"--selector={selector}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def wait_ready(self, seconds: float = READY_SECONDS) -> float:
        """Wait until every workload is ready and return the seconds that it took."""
        return until(f"{self.name} is ready", self._ready, seconds)

    def _ready(self) -> bool:
        for workload in self.get("deployments,statefulsets"):
            status, wanted = workload["status"], workload["spec"]["replicas"]
            current = status.get("observedGeneration") == workload["metadata"]["generation"]
            if not current or (status.get("updatedReplicas", 0), status.get("readyReplicas", 0)) != (wanted, wanted):
                return False
            if status.get("replicas", 0) != wanted:  # the previous pods are still stopping
                return False
        return True

    def messages(self, component: str) -> str:
        """Return the last messages of a component's containers, and why they wait."""
        said = []
        for pod in self.pods(component):
            status = pod["status"]
            said += [condition.get("message", "") for condition in status.get("conditions", [])]
            for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
                for state in (*container["state"].values(), *container.get("lastState", {}).values()):
                    said.append(state.get("message", ""))
        return "\n".join(said)

    def channel(self, component: str) -> grpc.Channel:
        """Open a channel to a service with the users' certificate."""
        if component not in self._channels:
            files = secret(self.namespace, f"{self.full}-client-tls")
            self._channels[component] = grpc.secure_channel(self.address(component), credentials(files))
        return self._channels[component]

    def address(self, component: str) -> str:
        """Return a service's address on this machine."""
        if component not in self._forwards:
            self._forwards[component] = Forward(self.namespace, f"service/{self.full}-{component}")
        return self._forwards[component].address

    def environment(self) -> dict[str, str]:
        """Return the CLI's environment, with its certificate fetched as documented."""
        home = self.folder / "home"
        folder = self.folder / "certificate"
        if not folder.exists():
            command = [CODEALIGN, "certificate", f"--release={self.name}", f"--namespace={self.namespace}"]
            run(*command, f"--into={folder}")
        names = {"trainer": "training"}
        addresses = {f"CODEALIGN_{names.get(name, name).upper()}_ADDRESS": self.address(name) for name in SERVICES}
        return {**addresses, "CODEALIGN_CERTIFICATE": str(folder), "CODEALIGN_HOME": str(home)}

    def codealign(self, *arguments: str, timeout: float = 900) -> tuple[int, str]:
        """Run the CLI against this release and return its exit status and output."""
        environment = self.environment()
        files = secret(self.namespace, f"{self.full}-client-tls")
        for component in SERVICES:
            # Forwarded ports recover from a replaced pod within a second or two. A new connection shows whether this
            # one has; an older one may not have noticed yet that its pod is gone.
            options = [("grpc.use_local_subchannel_pool", 1)]
            with (
                grpc.secure_channel(self.address(component), credentials(files), options) as fresh,
                contextlib.suppress(grpc.FutureTimeoutError),
            ):
                grpc.channel_ready_future(fresh).result(30)
        done = subprocess.run(
            [CODEALIGN, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **environment},
        )
        return done.returncode, done.stdout + done.stderr

    def version(self, seeds: int, seed: int) -> str:
        """Run the pipeline on the embedded model to its end, despite disturbances, and return the version's name."""
        command = ("run", "--preset=nano", f"--n={seeds}", f"--seed={seed}", "--until=data")
        for _ in range(20):
            status, said = self.codealign(*command)
            if status == 0:
                return next(word for word in said.split() if word.startswith("v-") and len(word) == 18)
        raise AssertionError(said)


def conditions(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return reason and message of an object's true conditions, by type."""
    listed = manifest.get("status", {}).get("conditions", [])
    return {each["type"]: f"{each['reason']}: {each['message']}" for each in listed if each["status"] == "True"}


def as_json(*documents: Mapping[str, Any]) -> str:
    """Return objects as JSON for `kubectl apply`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
