"""kubectl, helm and forwarded ports for the cluster tests."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from tests.ports import free_port

Manifest = dict[str, Any]
KEEP = bool(os.environ.get("CODEALIGN_TEST_KEEP"))
"""Keep existing releases and continue with them, for developing these tests."""


class CommandError(AssertionError):
    """A program failed; the message has its output."""


def run(*command: str, given: str | None = None, timeout: float = 300, env: dict[str, str] | None = None) -> str:
    """Run a program and return its output.

    Raises:
        CommandError: The exit status is not 0.
    """
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=timeout, check=False, env=environment
    )
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def kubectl(*arguments: str, given: str | None = None, timeout: float = 300) -> str:
    """Run kubectl on the cluster of KUBECONFIG."""
    return run("kubectl", *arguments, given=given, timeout=timeout)


def objects(*arguments: str) -> list[Manifest]:
    """Return the objects that `kubectl get ARGUMENTS` lists."""
    listed: list[Manifest] = json.loads(kubectl("get", *arguments, "--output=json"))["items"]
    return listed


def until(what: str, condition: Callable[[], bool], seconds: float = 120, every: float = 0.5) -> float:
    """Wait for a condition and return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(every)
    return time.monotonic() - began


def secret(namespace: str, name: str) -> dict[str, bytes]:
    """Return a Secret's values."""
    data: dict[str, str] = json.loads(kubectl("--namespace", namespace, "get", "secret", name, "--output=json"))["data"]
    return {key: base64.b64decode(value) for key, value in data.items()}


def credentials(files: dict[str, bytes], *, own: bool = True) -> grpc.ChannelCredentials:
    """Return a caller's credentials from a Secret of the chart, without a client certificate if `own` is false."""
    pair = (files["tls.key"], files["tls.crt"]) if own else (None, None)
    return grpc.ssl_channel_credentials(files["ca.crt"], *pair)


class Forward:
    """A forwarded port of a Service or pod, such as "service/web", re-established when a pod is replaced."""

    def __init__(self, namespace: str, target: str, port: int = 7400) -> None:
        self.port = free_port()
        self.address = f"localhost:{self.port}"
        forwarded = ("port-forward", target, f"{self.port}:{port}", "--pod-running-timeout=10s")
        self._command = ("kubectl", f"--namespace={namespace}", *forwarded)
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._closed.is_set():
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self._process.wait()
            self._closed.wait(0.5)

    def close(self) -> None:
        """Stop forwarding."""
        self._closed.set()
        if self._process:
            self._process.kill()
        self._thread.join()


@contextlib.contextmanager
def volumes(claims: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Create volumes for a cluster without a StorageClass: directories of its one node, which is this machine.

    Args:
        claims: Namespace and name of each claim.

    Yields:
        The chart's values for them; none where the cluster has a StorageClass.
    """
    if objects("storageclass"):
        yield {}
        return
    values = {"artifacts.class": "-", "postgresql.storage.class": "-"}
    names = [f"{namespace}-{claim}" for namespace, claim in claims]
    if KEEP and len(objects("persistentvolume")) >= len(names):
        yield values
        return
    kubectl("delete", "persistentvolume", *names, "--ignore-not-found", "--timeout=120s")
    folder = Path(tempfile.mkdtemp(prefix="codealign-volumes-"))
    folder.chmod(0o755)
    for namespace, claim in claims:
        place = folder / namespace / claim
        place.mkdir(parents=True)
        os.chown(place, 65532, 65532)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-{claim}"},
            "spec": {
                "capacity": {"storage": "1Ti"},
                "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(place)},
                "claimRef": {"namespace": namespace, "name": claim},
            },
        }
        kubectl("apply", "--filename=-", given=json.dumps(volume))
    try:
        yield values
    finally:
        if not KEEP:
            kubectl("delete", "persistentvolume", *names, "--wait=false", "--ignore-not-found")
            shutil.rmtree(folder, ignore_errors=True)
