"""HTTP client for OpenAI-compatible endpoints; maps their refusals and faults to our errors.

Nothing is sent twice. Resending after a timeout would make the endpoint generate the same long completion again and
again, so retrying is left to the caller, with the delay that the error carries.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import httpx2

from codealign.common.errors import (
    CodeAlignError,
    ConfigurationError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from codealign.common.proxies import bypasses_proxy
from codealign.inference.sources import SourceUnreachable

_CONNECT_SECONDS = 10.0
_METRICS_BYTES = 4 * 2**20
_METRICS_SECONDS = 2.0
"""Less than a scrape's usual timeout, so that a slow endpoint hides its own metrics only."""
_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 5.0, 3600.0
# Fields of a model's list entry that stay the same between calls (vLLM generates the others anew).
_STABLE_FIELDS = ("id", "owned_by", "root", "parent", "max_model_len")

# How providers mark a refusal by their filter: error codes or types, HTTP statuses, and words in messages.
_FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"}
)
_FILTER_STATUSES = frozenset({400, 403, 422, 451})
_FILTER_WORDS = ("content management policy", "content_filter", "content filter", "content policy", "usage policies")

Json = dict[str, Any]


class Filtered(Exception):
    """The endpoint's filter rejected a request; the message is the endpoint's."""


class Endpoint:
    """An endpoint's base URL and API key; connections open on first use.

    Args:
        base_url: The URL including the version, as in http://127.0.0.1:8000/v1.
        api_key: The key; empty: none.
        timeout: Timeout for an answer, in seconds.
        concurrency: Maximum number of concurrent requests.
    """

    def __init__(self, base_url: str, api_key: str, timeout: float, concurrency: int) -> None:
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_seconds = timeout
        self._timeout = httpx2.Timeout(timeout, connect=_CONNECT_SECONDS, pool=None)
        self._certificates = httpx2.create_ssl_context()
        """Read once: it takes longer than a short request, and every scrape of the metrics opens a client."""
        self._limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._free = asyncio.Semaphore(concurrency)
        # Maps URL patterns to transports; None means a direct connection without a proxy.
        self._direct = {f"all://{httpx2.URL(self.base_url).host}": None} if bypasses_proxy(self.base_url) else None
        self._client: httpx2.AsyncClient | None = None

    @property
    def tokenize_url(self) -> str:
        """URL of vLLM's tokenize method, which is outside the versioned path."""
        return f"{self.base_url.removesuffix('/v1')}/tokenize"

    def describe(self, model: str) -> Json:
        """Return the model's entry in the endpoint's list, or nothing if there is no list. Blocks.

        Raises:
            ConfigurationError: The endpoint does not have the model, or rejects the key.
            SourceUnreachable: The endpoint does not respond.
        """
        try:
            with self._blocking() as client:
                answer = client.get(f"{self.base_url}/models")
            if answer.status_code == 404:
                return {}
            if answer.status_code >= 400:
                error = _refusal(answer, "model")
                kind = SourceUnreachable if isinstance(error, (Unavailable, ResourceExhausted)) else ConfigurationError
                raise kind(f"{self.base_url}: {error.message}")
            listed: list[Json] = answer.json()["data"]
            known = {str(entry["id"]): entry for entry in listed}
        except httpx2.HTTPError as error:
            raise SourceUnreachable(f"{self.base_url} does not respond ({type(error).__name__}: {error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{self.base_url}/models is not a list of models: check the protocol and the version (/v1)"
            ) from error
        if model not in known:
            raise ConfigurationError(
                f"{self.base_url} has no model {model}; available: {', '.join(sorted(known)) or 'none'}"
            )
        return known[model]

    def offers_tokenize(self, model: str) -> bool:
        """Return whether the endpoint can count tokens. Blocks."""
        try:
            body = {"model": model, "prompt": "a", "add_special_tokens": False}
            with self._blocking() as client:
                answer = client.post(self.tokenize_url, json=body)
            return answer.status_code == 200 and isinstance(answer.json()["count"], int)
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return False

    @property
    def metrics_url(self) -> str:
        """URL of vLLM's metrics, which are outside the versioned path."""
        return f"{self.base_url.removesuffix('/v1')}/metrics"

    def metrics(self) -> str | None:
        """Return the endpoint's metrics as text, or None if it has none or does not answer in time. Blocks."""
        end = time.monotonic() + _METRICS_SECONDS  # the client's own limit holds for each read
        try:
            with self._blocking(_METRICS_SECONDS) as client, client.stream("GET", self.metrics_url) as answer:
                if answer.status_code != 200:
                    return None
                content = bytearray()
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _METRICS_BYTES or time.monotonic() > end:
                        return None
                return content.decode("utf-8", "replace")
        except httpx2.HTTPError:
            return None

    async def post(
        self, url: str, body: Mapping[str, Any], field: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Json:
        """Send a request once, after waiting for a free connection.

        Args:
            url: A full URL, or a path below the base URL.
            body: The request's JSON.
            field: The field of our request that a refusal refers to.
            headers: More headers.

        Raises:
            Filtered: The endpoint's filter rejected the request.
            InvalidArgument: The endpoint rejected the request.
            FailedPrecondition: The endpoint rejected the key or the model, or does not follow the protocol.
            ResourceExhausted: The endpoint limits the rate; with its Retry-After.
            Unavailable: The endpoint failed or is unreachable.
            DeadlineExceeded: The endpoint did not answer in time.
        """
        async with self._free:
            try:
                target = url if "://" in url else self.base_url + url
                answer = await self._connected().post(target, json=body, headers=dict(headers))
            except httpx2.ConnectTimeout as error:
                raise Unavailable(f"{self.base_url} does not accept connections", retry_after=_RETRY_SECONDS) from error
            except httpx2.TimeoutException as error:
                raise DeadlineExceeded(
                    f"{self.base_url} did not answer within {self._timeout_seconds:g} s "
                    "(CODEALIGN_INFERENCE_OPENAI_TIMEOUT); the request is not sent again"
                ) from error
            except httpx2.HTTPError as error:
                what = f"{type(error).__name__}: {error}".rstrip(": ")
                raise Unavailable(
                    f"{self.base_url} closed the connection ({what})", retry_after=_RETRY_SECONDS
                ) from error
        read = _json(answer)
        if answer.status_code in _FILTER_STATUSES and (message := filter_message(read)):
            raise Filtered(f"the endpoint returned {answer.status_code}: {message}")
        if answer.status_code >= 300:
            raise _refusal(answer, field)
        if not isinstance(read, dict):
            raise FailedPrecondition(f"{self.base_url} did not return a JSON object: check the URL")
        return read

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    def _blocking(self, timeout: float = _CONNECT_SECONDS) -> httpx2.Client:
        return httpx2.Client(headers=self._headers, timeout=timeout, mounts=self._direct, verify=self._certificates)

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                headers=self._headers,
                timeout=self._timeout,
                limits=self._limits,
                mounts=self._direct,
                verify=self._certificates,
            )
        return self._client


def endpoint_revision(base_url: str, model: str, entry: Json, *, system: str = "") -> str:
    """Return a hash of what is known of a remote model: its URL, its name, its list entry and how it is asked.

    Different weights under the same name go unnoticed.

    Args:
        base_url: The endpoint's URL.
        model: The model's name there.
        entry: The model's list entry.
        system: System message with which prompts are sent; empty: they are sent as they are.
    """
    stable = {field: entry[field] for field in _STABLE_FIELDS if entry.get(field) is not None}
    known: Json = {"base_url": base_url, "model": model, "entry": stable} | ({"system": system} if system else {})
    text = json.dumps(known, sort_keys=True)
    return hashlib.sha256(f"codealign endpoint 1\n{text}".encode()).hexdigest()


def _refusal(answer: httpx2.Response, field: str) -> CodeAlignError:
    status, message = answer.status_code, _message(answer)
    said = f"the endpoint returned {status}: {message}"
    if status == 429 and "quota" not in message.lower():
        return ResourceExhausted(said, retry_after=_retry_after(answer))
    if status in (408, 409, 425) or status >= 500:
        return Unavailable(said, retry_after=_retry_after(answer))
    if status in (400, 413, 422):
        return InvalidArgument(field, said)
    hint = {401: "CODEALIGN_INFERENCE_OPENAI_API_KEY", 403: "CODEALIGN_INFERENCE_OPENAI_API_KEY"}
    return FailedPrecondition(f"{said}; check {hint.get(status, 'the base URL, the model and its quota')}")


def _retry_after(answer: httpx2.Response) -> float:
    try:
        return min(max(0.0, float(answer.headers.get("retry-after", ""))), _LONGEST_RETRY_SECONDS)
    except ValueError:  # absent, or a date
        return _RETRY_SECONDS


def _message(answer: httpx2.Response) -> str:
    """Return OpenAI's `error.message`, or else the answer's text, truncated."""
    read = _json(answer)
    return _sentence(_error_text(read.get("error", read)) if isinstance(read, dict) else answer.text)


def filter_message(read: Any) -> str:
    """Return the message of a filter error; empty for other errors and for no error."""
    error = read.get("error", read) if isinstance(read, dict) else None
    if not isinstance(error, dict):
        return ""
    inner = error.get("innererror")
    names = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    text = _error_text(error)
    named = any(str(name).lower() in _FILTER_CODES for name in names)
    return _sentence(text) if named or any(word in text.lower() for word in _FILTER_WORDS) else ""


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _error_text(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _sentence(text: str) -> str:
    return " ".join(text.split())[:500] or "(empty)"
