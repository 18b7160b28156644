"""Minimal Kubernetes API client over JSON objects."""

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
"""API path of each kind."""
_TIMEOUT_SECONDS = 20.0


class ApiRefusal(CodeAlignError):
    """The API server rejected a request.

    Args:
        status: The HTTP status.
        message: The server's message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the Kubernetes API returned {status}: {message}")
        self.status = status


class Conflict(ApiRefusal):
    """An object of this name exists already, or it was changed concurrently."""


class Cluster(Protocol):
    """Objects of one namespace. Kinds are given by their plural names."""

    async def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None if it does not exist."""

    async def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """Return the objects that match the selectors."""

    async def create(self, kind: str, body: Object) -> Object:
        """Create an object.

        Raises:
            Conflict: An object of this name exists.
        """

    async def patch(self, kind: str, name: str, change: Object, *, status: bool = False) -> Object | None:
        """Merge a change into an object or its status; return None if the object does not exist.

        Raises:
            Conflict: The change has a resourceVersion that is not the object's.
        """

    async def delete(self, kind: str, name: str, *, uid: str = "") -> None:
        """Delete an object and everything that it owns; ignore a missing object or one with another uid."""


class KubernetesCluster:
    """Client of a real cluster.

    Args:
        namespace: Namespace of the objects.

    Raises:
        ConfigurationError: The client library or the cluster's configuration is missing.
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
                    f"no Kubernetes cluster configured: no ServiceAccount token and no kubeconfig found ({error})"
                ) from error
        self._client = client.ApiClient()
        self._namespace = namespace

    async def get(self, kind: str, name: str) -> Object | None:
        """Return an object; see `Cluster.get`."""
        return await self._or_none("GET", self._path(kind, name))

    async def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """Return the matching objects; see `Cluster.list`."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        asked = "&".join(f"{key}={quote(value)}" for key, value in query.items() if value)
        answer = await self._call("GET", self._path(kind) + (f"?{asked}" if asked else ""))
        found: list[Object] = answer["items"]
        return found

    async def create(self, kind: str, body: Object) -> Object:
        """Create an object; see `Cluster.create`."""
        return await self._call("POST", self._path(kind), body)

    async def patch(self, kind: str, name: str, change: Object, *, status: bool = False) -> Object | None:
        """Merge a change into an object; see `Cluster.patch`."""
        path = self._path(kind, name) + ("/status" if status else "")
        return await self._or_none("PATCH", path, change)

    async def delete(self, kind: str, name: str, *, uid: str = "") -> None:
        """Delete an object; see `Cluster.delete`."""
        options: Object = {"propagationPolicy": "Foreground"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._or_none("DELETE", self._path(kind, name), options)
        except Conflict:  # an object of the same name with another uid
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
            raise Unavailable(f"the Kubernetes API returned {answer.status}: {message}")
        raise ApiRefusal(answer.status, message)


def _message(data: bytes) -> str:
    try:
        said: Any = json.loads(data)
        return str(said["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")[:500]
