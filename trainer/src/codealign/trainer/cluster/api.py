"""The few calls of the Kubernetes API that are used, on objects as JSON has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from codealign.common.errors import CodeAlignError, ConfigurationError, Unavailable
from codealign.trainer.cluster.resource import GROUP, PLURAL, VERSION, Object

PATHS: Mapping[str, str] = {
    PLURAL: f"/apis/{GROUP}/{VERSION}",
    "jobs": "/apis/batch/v1",
    "services": "/api/v1",
    "pods": "/api/v1",
    "events": "/api/v1",
}
"""Where each kind lies."""
_TIMEOUT_SECONDS = 20.0


class ApiRefusal(CodeAlignError):
    """The API server says no.

    Args:
        status: The HTTP status.
        message: What the server says.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the Kubernetes API answers {status}: {message}")
        self.status = status


class Conflict(ApiRefusal):
    """There is one of this name already, or it has changed in the meantime."""


class Cluster(Protocol):
    """Objects of one namespace. Kinds are named by their plurals."""

    async def get(self, kind: str, name: str) -> Object | None:
        """An object; None where there is none."""

    async def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """The objects that selectors take."""

    async def create(self, kind: str, body: Object) -> Object:
        """Make an object.

        Raises:
            Conflict: There is one of this name.
        """

    async def patch(self, kind: str, name: str, change: Object, *, status: bool = False) -> Object | None:
        """Merge a change into an object, or into its status; None where it is gone.

        Raises:
            Conflict: The change names a resourceVersion, and the object has another one.
        """

    async def delete(self, kind: str, name: str, *, uid: str = "") -> None:
        """Delete an object, and what it owns before it; one that is gone, or has another uid, is left alone."""


class KubernetesCluster:
    """A real one.

    Args:
        namespace: The objects'.

    Raises:
        ConfigurationError: There is no way to the API server.
    """

    def __init__(self, namespace: str) -> None:
        try:
            from kubernetes import client, config
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"{error.name} is missing: pip install 'codealign-trainer[cluster]'") from error
        try:
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        except config.ConfigException:
            try:
                config.load_kube_config()  # type: ignore[no-untyped-call]
            except config.ConfigException as error:
                raise ConfigurationError(
                    f"no Kubernetes cluster: neither a pod's ServiceAccount token nor a kubeconfig ({error})"
                ) from error
        self._client = client.ApiClient()
        self._namespace = namespace

    async def get(self, kind: str, name: str) -> Object | None:
        """See Cluster."""
        return await self._or_none("GET", self._path(kind, name))

    async def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """See Cluster."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        asked = "&".join(f"{key}={quote(value)}" for key, value in query.items() if value)
        answer = await self._call("GET", self._path(kind) + (f"?{asked}" if asked else ""))
        found: list[Object] = answer["items"]
        return found

    async def create(self, kind: str, body: Object) -> Object:
        """See Cluster."""
        return await self._call("POST", self._path(kind), body)

    async def patch(self, kind: str, name: str, change: Object, *, status: bool = False) -> Object | None:
        """See Cluster."""
        path = self._path(kind, name) + ("/status" if status else "")
        return await self._or_none("PATCH", path, change)

    async def delete(self, kind: str, name: str, *, uid: str = "") -> None:
        """See Cluster."""
        options: Object = {"propagationPolicy": "Foreground"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._or_none("DELETE", self._path(kind, name), options)
        except Conflict:  # another one of the same name
            return

    def _path(self, kind: str, name: str = "") -> str:
        return f"{PATHS[kind]}/namespaces/{self._namespace}/{kind}" + (f"/{quote(name)}" if name else "")

    async def _or_none(self, method: str, path: str, body: Object | None = None) -> Object | None:
        try:
            return await self._call(method, path, body)
        except ApiRefusal as error:
            if error.status == 404:
                return None
            raise

    async def _call(self, method: str, path: str, body: Object | None = None) -> Object:
        return await asyncio.to_thread(self._request, method, path, body)

    def _request(self, method: str, path: str, body: Object | None) -> Object:
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            made = self._client.param_serialize(
                method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            answer = self._client.call_api(*made, _request_timeout=_TIMEOUT_SECONDS)
            data: bytes = answer.read()  # type: ignore[no-untyped-call]
        except HTTPError as error:
            raise Unavailable(f"the Kubernetes API server cannot be reached: {error}") from error
        if 200 <= answer.status <= 299:
            found: Object = json.loads(data)
            return found
        message = _message(data) or str(answer.reason)
        if answer.status == 409:
            raise Conflict(409, message)
        if answer.status in (429, 500, 502, 503, 504):
            raise Unavailable(f"the Kubernetes API answers {answer.status}: {message}")
        raise ApiRefusal(answer.status, message)


def _message(data: bytes) -> str:
    try:
        said: Any = json.loads(data)
        return str(said["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")[:500]
