"""HTTP to an endpoint that speaks OpenAI's protocol; its refusals and faults as our errors.

Nothing is sent twice here. A client that re-sends after a time-out has the endpoint write the same long completion
again and again; whether to try again is the caller's to decide, with the delay that the error carries.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
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
_RETRY_SECONDS = 5.0
# What a list of models says of one that does not change from call to call (vLLM draws the others anew).
_STABLE_FIELDS = ("id", "owned_by", "root", "parent", "max_model_len")

# How providers name a refusal by their filter, as an error's code or type; and what their messages say.
_FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"}
)
_FILTER_STATUSES = frozenset({400, 403, 422, 451})
_FILTER_WORDS = ("content management policy", "content_filter", "content filter", "content policy", "usage policies")

Json = dict[str, Any]


class Filtered(Exception):
    """The endpoint's filter refuses this one request; the message says what it said."""


class Endpoint:
    """One base URL with its key."""

    def __init__(self, base_url: str, api_key: str, timeout: float, concurrency: int) -> None:
        """Describe it; connections open when they are needed.

        Args:
            base_url: With the version, as in http://127.0.0.1:8000/v1.
            api_key: Empty: none.
            timeout: Seconds that an answer may take.
            concurrency: Requests at once.
        """
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_seconds = timeout
        self._timeout = httpx2.Timeout(timeout, connect=_CONNECT_SECONDS, pool=None)
        self._limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._free = asyncio.Semaphore(concurrency)
        # As a mapping of URLs to transports: none of its own, so none through a proxy.
        self._direct = {f"all://{httpx2.URL(self.base_url).host}": None} if bypasses_proxy(self.base_url) else None
        self._client: httpx2.AsyncClient | None = None

    @property
    def tokenize_url(self) -> str:
        """A method of vLLM's own, which lies beside the version."""
        return f"{self.base_url.removesuffix('/v1')}/tokenize"

    def describe(self, model: str) -> Json:
        """What the endpoint's list says of a model; empty where there is no list. Blocks.

        Raises:
            ConfigurationError: it has no such model, or refuses the key.
            SourceUnreachable: it does not answer.
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
            known = {entry["id"]: entry for entry in listed}
        except httpx2.HTTPError as error:
            raise SourceUnreachable(f"{self.base_url} does not answer ({type(error).__name__}: {error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{self.base_url}/models is no list of models: is this OpenAI's protocol, with its version (/v1)?"
            ) from error
        if model not in known:
            raise ConfigurationError(
                f"{self.base_url} has no model {model}; it has {', '.join(sorted(known)) or 'none'}"
            )
        return known[model]

    def offers_tokenize(self, model: str) -> bool:
        """Whether it counts tokens. Blocks."""
        try:
            body = {"model": model, "prompt": "a", "add_special_tokens": False}
            with self._blocking() as client:
                answer = client.post(self.tokenize_url, json=body)
            return answer.status_code == 200 and isinstance(answer.json()["count"], int)
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return False

    async def post(self, url: str, body: Mapping[str, Any], field: str) -> Json:
        """Send a request, once, as soon as fewer than the allowed number are under way.

        Args:
            url: Whole, or a path below the base URL.
            body: As JSON.
            field: The field of our own request that a refusal is about.

        Raises:
            Filtered: the endpoint's filter refuses the request.
            InvalidArgument: the endpoint refuses the request.
            FailedPrecondition: it refuses the key or the model, or speaks another protocol.
            ResourceExhausted: it is asked too much; with its Retry-After.
            Unavailable: it has a fault or is away.
            DeadlineExceeded: it took longer than the time-out.
        """
        async with self._free:
            try:
                answer = await self._connected().post(url if "://" in url else self.base_url + url, json=body)
            except httpx2.ConnectTimeout as error:
                raise Unavailable(f"{self.base_url} takes no connection", retry_after=_RETRY_SECONDS) from error
            except httpx2.TimeoutException as error:
                raise DeadlineExceeded(
                    f"{self.base_url} did not answer within {self._timeout_seconds:g} s "
                    "(CODEALIGN_INFERENCE_OPENAI_TIMEOUT); the request is not sent again"
                ) from error
            except httpx2.HTTPError as error:
                what = f"{type(error).__name__}: {error}".rstrip(": ")
                raise Unavailable(f"{self.base_url} broke the call off ({what})", retry_after=_RETRY_SECONDS) from error
        read = _json(answer)
        if answer.status_code in _FILTER_STATUSES and (message := filter_message(read)):
            raise Filtered(f"the endpoint answers {answer.status_code}: {message}")
        if answer.status_code >= 300:
            raise _refusal(answer, field)
        if not isinstance(read, dict):
            raise FailedPrecondition(f"{self.base_url} answers with something else than a JSON object: check the URL")
        return read

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()

    def _blocking(self) -> httpx2.Client:
        return httpx2.Client(headers=self._headers, timeout=_CONNECT_SECONDS, mounts=self._direct)

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                headers=self._headers, timeout=self._timeout, limits=self._limits, mounts=self._direct
            )
        return self._client


def known_revision(base_url: str, model: str, entry: Json) -> str:
    """What can be known of a model behind an endpoint: a hash of where it is, its name and its entry in the list.

    Other weights under the same name are not noticed.
    """
    stable = {field: entry[field] for field in _STABLE_FIELDS if entry.get(field) is not None}
    text = json.dumps({"base_url": base_url, "model": model, "entry": stable}, sort_keys=True)
    return hashlib.sha256(f"codealign endpoint 1\n{text}".encode()).hexdigest()


def _refusal(answer: httpx2.Response, field: str) -> CodeAlignError:
    status, message = answer.status_code, _message(answer)
    said = f"the endpoint answers {status}: {message}"
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
        return max(0.0, float(answer.headers.get("retry-after", "")))
    except ValueError:  # absent, or a date
        return _RETRY_SECONDS


def _message(answer: httpx2.Response) -> str:
    """OpenAI's `error.message`, or what else the answer says, cut to a sentence."""
    read = _json(answer)
    return _sentence(_error_text(read.get("error", read)) if isinstance(read, dict) else answer.text)


def filter_message(read: Any) -> str:
    """What an error says that comes of the endpoint's filter; empty: it is another error, or none."""
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
    return " ".join(text.split())[:500] or "nothing"
