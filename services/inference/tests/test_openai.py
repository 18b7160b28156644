"""Engine openai against well-behaved and misbehaving endpoints."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from codealign.common.errors import (
    CodeAlignError,
    ConfigurationError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from codealign.inference.engine_opener import open_engine
from codealign.inference.engines.base import ChatMessage, Completion, FinishReason, GenerationRequest, Sample, Sampling
from codealign.inference.engines.openai.engine import CONTINUE, OpenAIEngine
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import SourceUnreachable
from tests.ports import free_port

Answer = Callable[["Handler"], None]
KEY = "sk-secret"
APIS = ("completions", "chat")
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


class Handler(BaseHTTPRequestHandler):
    """Answers as the test specifies, and keeps the requests."""

    server: Endpoint
    body: dict[str, Any]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/metrics" and self.server.metrics is not None:
            self.send(200, self.server.metrics)
        elif self.server.models is None or self.path == "/metrics":
            self.send(404, {"error": {"message": "no such path"}})
        elif self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.send(401, {"error": {"message": "wrong key"}})
        else:
            self.send(200, {"object": "list", "data": self.server.models})

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            if self.server.untold is not None:
                self.send(*self.server.untold)
            else:
                self.send(404, {}) if self.server.tokens is None else self.send(200, {"count": self.server.tokens})
            return
        self.server.asked.append({"path": self.path, **self.body})
        self.server.sessions.append(self.headers.get("x-user-id"))
        self.server.answer(self)

    def send(self, status: int, body: object, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.server.pause:
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(self.server.pause)
        else:
            self.wfile.write(data)

    def complete(self, text: str = "text", reason: str = "stop", **more: object) -> None:
        content = {"message": {"content": text}} if "messages" in self.body else {"text": text}
        self.send(200, {"choices": [{**content, "finish_reason": reason, **more}], "usage": USAGE})


class Endpoint(ThreadingHTTPServer):
    """A small endpoint on a free port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: list[dict[str, Any]] | None = [{"id": "m", "owned_by": "us", "max_model_len": 64}]
        self.key = ""
        self.tokens: int | None = None
        self.untold: tuple[int, object] | None = None
        """Answer of the tokenizer instead of the number of tokens."""
        self.metrics: bytes | None = None
        self.pause = 0.0
        """Seconds after each byte of an answer."""
        self.asked: list[dict[str, Any]] = []
        self.sessions: list[str | None] = []
        self.answer: Answer = Handler.complete

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    # Stopping a server waits until it looks for the request to stop, half a second by default.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def settings(url: str, **more: Any) -> InferenceSettings:
    return InferenceSettings(engine="openai", openai_base_url=url, openai_api_key=KEY, **more)


@asynccontextmanager
async def opened(url: str, model: str = "m", **more: Any) -> AsyncIterator[OpenAIEngine]:
    engine: Any = await asyncio.to_thread(open_engine, settings(url, **more), model)
    try:
        yield engine
    finally:
        await engine.close()


async def complete(
    engine: OpenAIEngine, prompt: Any = "def add", sampling: Sampling | None = None, seeds: tuple[int, ...] = (7,)
) -> list[Completion]:
    """Return completions in the order of their attempts."""
    samples = tuple(Sample(attempt, seed) for attempt, seed in enumerate(seeds))
    request = GenerationRequest(prompt, samples, sampling or Sampling(max_tokens=8))
    return sorted([one async for one in engine.generate(request)], key=lambda one: one.attempt)


async def test_each_sample_is_a_request_with_its_seed(endpoint: Endpoint) -> None:
    endpoint.answer = lambda handler: handler.complete(f"seed {handler.body['seed']}")
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=40, max_tokens=8, stop=("\n\n",))
    async with opened(endpoint.url) as engine:
        found = await complete(engine, "def add", sampling, (1, 2, 2**63 + 3))
        assert [one.text for one in found] == ["seed 1", "seed 2", "seed 3"]
        assert (found[0].prompt_tokens, found[0].cached_prompt_tokens, found[0].generated_tokens) == (9, 4, 3)
        assert (engine.load().prompt_tokens, engine.load().running) == (27, 0)
    wanted = {"path": "/v1/completions", "model": "m", "prompt": "def add", "max_tokens": 8, "temperature": 0.7}
    wanted |= {"top_p": 0.9, "top_k": 40, "stop": ["\n\n"]}
    assert sorted(asked.pop("seed") for asked in endpoint.asked) == [1, 2, 3]
    assert endpoint.asked == [wanted] * 3


async def test_an_endpoint_that_only_chats_is_asked_to_continue_the_prompt(endpoint: Endpoint) -> None:
    endpoint.answer = lambda handler: handler.complete(f"seed {handler.body['seed']}\n\nmore", "length")
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=8, stop=("\n\n", "\n## Example 3"))
    async with opened(endpoint.url, openai_api="chat") as engine:
        found = await complete(engine, "def add", sampling, (1, 2))
        assert [(one.text, one.stop_string) for one in found] == [("seed 1", "\n\n"), ("seed 2", "\n\n")]
        assert (found[0].prompt_tokens, found[0].cached_prompt_tokens, found[0].generated_tokens) == (9, 4, 3)
        assert engine.load().generated_tokens == 6
    wanted = {"path": "/v1/chat/completions", "model": "m", "max_tokens": 8, "temperature": 0.7, "top_p": 0.9}
    wanted |= {"stop": ["\n\n", "\n## Example 3"]}
    wanted["messages"] = [{"role": "system", "content": CONTINUE}, {"role": "user", "content": "def add"}]
    assert sorted(asked.pop("seed") for asked in endpoint.asked) == [1, 2]
    assert endpoint.asked == [wanted] * 2


async def test_prompts_with_the_same_prefix_carry_the_same_session(endpoint: Endpoint) -> None:
    async with opened(endpoint.url, openai_session_header="x-user-id") as engine:
        for key in ("concepts ä 1", "concepts ä 1", "concepts ä 2", ""):
            request = GenerationRequest("def add", (Sample(0, 1),), Sampling(max_tokens=1), prefix_key=key)
            _ = [one async for one in engine.generate(request)]
    first, again, other, none = endpoint.sessions
    assert first == again != other
    assert first
    assert none is None


async def test_what_a_chat_endpoint_does_not_tell_is_unknown(endpoint: Endpoint) -> None:
    endpoint.answer = lambda handler: handler.send(
        200, {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    )
    async with opened(endpoint.url, openai_api="chat") as engine:
        [one] = await complete(engine, sampling=Sampling(stop=("b",)))
        with pytest.raises(Unimplemented, match="has no /tokenize"):
            await engine.count_tokens(["a"])
    assert (one.prompt_tokens, one.cached_prompt_tokens, one.generated_tokens) == (0, None, 0)
    assert (one.text, one.finish_reason, one.stop_string) == ("a", FinishReason.STOP_STRING, "")
    assert "max_tokens" not in endpoint.asked[0], "the endpoint's own limit is the context"


async def test_a_conversation_is_sent_as_it_is_where_prompts_are_chats_too(endpoint: Endpoint) -> None:
    async with opened(endpoint.url, openai_api="chat") as engine:
        await complete(engine, (ChatMessage("user", "b"),))
    assert endpoint.asked[0]["messages"] == [{"role": "user", "content": "b"}]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_endpoint_on_this_machine_is_reached_without_a_proxy(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    endpoint.tokens = 3
    async with opened(endpoint.url.replace("127.0.0.1", host)) as engine:
        assert len(await complete(engine)) == 1
        assert await engine.count_tokens(["a"]) == [3]


async def test_a_conversation_is_a_chat_completion(endpoint: Endpoint) -> None:
    async with opened(endpoint.url) as engine:
        assert engine.model.chat_template
        [found] = await complete(engine, (ChatMessage("system", "a"), ChatMessage("user", "b")), Sampling())
    assert found.text == "text"
    [asked] = endpoint.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["messages"] == [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert not {"max_tokens", "top_k", "stop"} & set(asked)


@pytest.mark.parametrize(
    ("stop", "choice", "found"),
    [
        ((), {"reason": "stop"}, (FinishReason.END_TOKEN, "", "text")),
        ((), {"reason": "length"}, (FinishReason.LENGTH, "", "text")),
        ((), {"reason": "eos_token"}, (FinishReason.END_TOKEN, "", "text")),
        (("x",), {"reason": "stop_sequence"}, (FinishReason.STOP_STRING, "", "text")),
        (("x", "y"), {"reason": "stop", "matched_stop": "y"}, (FinishReason.STOP_STRING, "y", "text")),
        (("x", "y"), {"reason": "stop", "matched_stop": 7}, (FinishReason.END_TOKEN, "", "text")),
        (("x", "y"), {"reason": "stop", "stop_reason": "end_turn"}, (FinishReason.END_TOKEN, "", "text")),
        (("b",), {"reason": "content_filter", "text": "a b"}, (FinishReason.STOP_STRING, "b", "a ")),
        (("x", "y"), {"reason": "stop", "stop_reason": "y"}, (FinishReason.STOP_STRING, "y", "text")),
        (("x", "y"), {"reason": "stop", "stop_reason": None}, (FinishReason.END_TOKEN, "", "text")),
        (("x", "y"), {"reason": "stop", "stop_reason": 7}, (FinishReason.END_TOKEN, "", "text")),
        (("x", "y"), {"reason": "stop"}, (FinishReason.STOP_STRING, "", "text")),
        (("b", "c"), {"reason": "length", "text": "a c b"}, (FinishReason.STOP_STRING, "c", "a ")),
    ],
)
async def test_why_it_ended_is_told_as_far_as_it_is_known(
    endpoint: Endpoint, stop: tuple[str, ...], choice: dict[str, Any], found: tuple[FinishReason, str, str]
) -> None:
    stop = tuple(one.replace("x", "never").replace("y", "nor this") for one in stop)
    for field in ("stop_reason", "matched_stop"):
        if choice.get(field) == "y":
            choice = {**choice, field: "nor this"}
            found = (found[0], "nor this", found[2])
    endpoint.answer = lambda handler: handler.complete(**choice)
    async with opened(endpoint.url) as engine:
        [one] = await complete(engine, sampling=Sampling(max_tokens=8, stop=stop))
    assert (one.finish_reason, one.stop_string, one.text) == found


def said(status: int, message: str = "because", **headers: str) -> Answer:
    return lambda handler: handler.send(status, {"error": {"message": message}}, **headers)


POLICY = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
AZURE = {"code": "content_filter", "message": POLICY, "innererror": {"code": "ResponsibleAIPolicyViolation"}}


def choosing(choice: dict[str, Any]) -> Answer:
    return lambda handler: handler.send(200, {"choices": [choice], "usage": USAGE})


@pytest.mark.parametrize(
    ("answer", "reason", "text", "detail"),
    [
        (choosing({"text": "a", "finish_reason": "content_filter"}), "content_filter", "a", "content_filter"),
        (choosing({"text": None, "finish_reason": "content_filter"}), "content_filter", "", "content_filter"),
        (choosing({"finish_reason": "content_filter"}), "content_filter", "", "content_filter"),
        (choosing({"message": {}, "finish_reason": "content_filter"}), "content_filter", "", "content_filter"),
        (
            choosing({"message": {"content": None, "refusal": "I can't"}, "finish_reason": "stop"}),
            "content_filter",
            "",
            'refusal: "I can\'t"',
        ),
        (
            choosing({"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}),
            "tool_call",
            "",
            "finish_reason tool_calls",
        ),
        (choosing({"text": "", "finish_reason": "function_call"}), "tool_call", "", "function_call"),
        (lambda handler: handler.send(400, {"error": AZURE}), "content_filter", "", "returned 400: The response was"),
        (said(400, POLICY), "content_filter", "", "content management policy"),
        (said(403, "flagged: it violates our content policy"), "content_filter", "", "returned 403"),
        (lambda handler: handler.send(400, AZURE), "content_filter", "", "returned 400"),
        (
            lambda handler: handler.send(400, {"error": {"code": "data_inspection_failed", "message": "no"}}),
            "content_filter",
            "",
            "returned 400: no",
        ),
        (
            lambda handler: handler.send(400, {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
            "content_filter",
            "",
            "ResponsibleAIPolicyViolation",
        ),
        (lambda handler: handler.send(200, {"error": AZURE}), "content_filter", "", "content management"),
    ],
)
@pytest.mark.parametrize("way", APIS)
async def test_what_is_one_samples_fault_ends_that_sample_alone(
    endpoint: Endpoint, answer: Answer, reason: str, text: str, detail: str, way: str
) -> None:
    endpoint.answer = lambda handler: handler.complete() if handler.body["seed"] == 1 else answer(handler)
    async with opened(endpoint.url, openai_api=way) as engine:
        odd, good = await complete(engine, seeds=(0, 1))
    assert (odd.finish_reason.value, odd.text, good.finish_reason.value) == (reason, text, "end_token")
    assert detail in odd.detail
    assert good.detail == ""


@pytest.mark.parametrize("way", APIS)
@pytest.mark.parametrize("content", [None, ""])
async def test_a_chat_without_text_is_an_empty_completion(endpoint: Endpoint, content: str | None, way: str) -> None:
    endpoint.answer = choosing({"message": {"content": content}, "finish_reason": "stop"})
    async with opened(endpoint.url, openai_api=way) as engine:
        [found] = await complete(engine)
    assert (found.text, found.finish_reason, found.detail) == ("", FinishReason.END_TOKEN, "")


async def test_half_of_a_surrogate_pair_is_escaped(endpoint: Endpoint) -> None:
    endpoint.answer = choosing({"text": "a\ud800b", "finish_reason": "stop"})
    async with opened(endpoint.url) as engine:
        [found] = await complete(engine)
    assert found.text == "a\\ud800b"


def cut(handler: Handler) -> None:
    """Reset the connection instead of answering."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def half(handler: Handler) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.close_connection = True


def hanging(over: threading.Event) -> Answer:
    """Say nothing until the test is over."""

    def hang(_: Handler) -> None:
        over.wait(20)

    return hang


FAULTS: list[tuple[Answer, type[CodeAlignError], str]] = [
    (said(429), ResourceExhausted, "returned 429: because"),
    (said(429, "you exceeded your quota"), FailedPrecondition, "check the base URL, the model and its quota"),
    (said(500), Unavailable, "returned 500: because"),
    (said(503), Unavailable, "returned 503: because"),
    (said(400, "context is 64 tokens"), InvalidArgument, "prompt: the endpoint returned 400: context is 64 tokens"),
    (said(422), InvalidArgument, "returned 422"),
    (said(401), FailedPrecondition, "check CODEALIGN_INFERENCE_OPENAI_API_KEY"),
    (said(404), FailedPrecondition, "returned 404: because; check the base URL"),
    (said(307, Location="/elsewhere"), FailedPrecondition, "returned 307"),
    (cut, Unavailable, "closed the connection"),
    (half, Unavailable, "closed the connection"),
    (lambda handler: handler.send(200, b"<html>"), FailedPrecondition, "did not return a JSON object"),
    (
        lambda handler: handler.send(200, {"object": "x"}),
        FailedPrecondition,
        'OpenAI\'s protocol: {"object": "x"}',
    ),
    (lambda handler: handler.send(200, {"choices": "x"}), FailedPrecondition, "does not follow OpenAI's protocol"),
    (lambda handler: handler.send(200, {"choices": []}), Internal, 'has no choice: {"choices": []}'),
    (lambda handler: handler.send(200, {"error": {"message": "overloaded"}}), Internal, "overloaded"),
    (lambda handler: handler.send(200, {"choices": [{"error": {"code": 502}}]}), Internal, '{"code": 502}'),
    (lambda handler: handler.send(200, {"choices": [{"finish_reason": None}]}), Internal, "has no text"),
    (lambda handler: handler.send(200, {"choices": [{"text": 7, "finish_reason": "stop"}]}), Internal, '"text": 7'),
    (lambda handler: handler.send(502, b"<html>bad gateway</html>"), Unavailable, "502: <html>bad gateway"),
    (
        lambda handler: handler.send(200, {"choices": [{"message": {}, "finish_reason": "stop"}]}),
        Internal,
        "has no text",
    ),
    (
        lambda handler: handler.send(200, {"choices": [{"message": {"content": ["a"]}, "finish_reason": "stop"}]}),
        Internal,
        "a text that is not a string",
    ),
    (lambda handler: handler.complete(reason="banana"), Internal, 'unknown finish_reason: "banana"'),
    (lambda handler: handler.complete(reason=""), Internal, 'unknown finish_reason: ""'),
    (
        lambda handler: handler.send(200, {"choices": [{"text": "a", "finish_reason": None}]}),
        Internal,
        "finish_reason: null",
    ),
    (lambda handler: handler.send(200, {"choices": [{"text": "a"}]}), Internal, "finish_reason: null"),
    (
        lambda handler: handler.send(200, {"choices": [{"text": "a", "finish_reason": 3}]}),
        Internal,
        "finish_reason: 3",
    ),
    (said(403, "no such deployment"), FailedPrecondition, "returned 403"),
]


@pytest.mark.parametrize("way", APIS)
@pytest.mark.parametrize(("answer", "kind", "message"), FAULTS)
async def test_a_fault_is_told_and_nothing_is_sent_again(
    endpoint: Endpoint, answer: Answer, kind: type[CodeAlignError], message: str, way: str
) -> None:
    endpoint.answer = answer
    async with opened(endpoint.url, openai_api=way) as engine:
        with pytest.raises(kind, match=re.escape(message)) as caught:
            await complete(engine)
        assert len(endpoint.asked) == 1
        assert KEY not in caught.value.message
        endpoint.answer = Handler.complete
        assert len(await complete(engine)) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"Retry_After": "inf"}, 3600.0),
        ({"Retry_After": "nan"}, 0.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 5.0),
        ({}, 5.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("way", APIS)
async def test_the_delay_is_the_endpoints(
    endpoint: Endpoint, status: int, headers: dict[str, str], seconds: float, way: str
) -> None:
    endpoint.answer = said(status, **headers)
    async with opened(endpoint.url, openai_api=way) as engine:
        with pytest.raises((ResourceExhausted, Unavailable)) as caught:
            await complete(engine)
    assert getattr(caught.value, "retry_after", None) == seconds


async def test_the_first_fault_ends_the_other_samples(endpoint: Endpoint) -> None:
    gone = threading.Event()

    def answer(handler: Handler) -> None:
        if handler.body["seed"] == 1:
            handler.send(500, {})
        elif not gone.wait(20):
            handler.complete()

    endpoint.answer = answer
    async with opened(endpoint.url) as engine:
        with pytest.raises(Unavailable):
            await complete(engine, seeds=(0, 1, 2))
        assert engine.load().running == 0
    gone.set()


async def test_a_slow_answer_is_given_up_and_not_sent_again(endpoint: Endpoint) -> None:
    over = threading.Event()
    endpoint.answer = hanging(over)
    async with opened(endpoint.url, openai_timeout=0.3) as engine:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s \(CODEALIGN_INFERENCE_OPENAI_TIMEOUT\)"):
            await complete(engine)
    over.set()
    assert len(endpoint.asked) == 1


async def test_only_so_many_requests_are_under_way(endpoint: Endpoint) -> None:
    now, most, lock, together = 0, 0, threading.Lock(), threading.Barrier(3)

    def answer(handler: Handler) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(20)
        with lock:
            now -= 1
        handler.complete()

    endpoint.answer = answer
    async with opened(endpoint.url, openai_concurrency=3, max_waiting=20) as engine:
        job = asyncio.create_task(complete(engine, seeds=tuple(range(15))))
        await asyncio.sleep(0)
        assert (engine.load().running, engine.load().waiting, engine.load().slots) == (3, 12, 3)
        with pytest.raises(ResourceExhausted, match="CODEALIGN_INFERENCE_MAX_WAITING"):
            await complete(engine, seeds=tuple(range(9)))
        assert len(await job) == 15
    assert most == 3


async def test_closing_ends_what_is_in_flight_and_cancelling_frees_it(endpoint: Endpoint) -> None:
    over = threading.Event()
    endpoint.answer = hanging(over)
    async with opened(endpoint.url) as engine:
        request = GenerationRequest("a", (Sample(0, 0), Sample(1, 1)), Sampling(max_tokens=1))
        async with aclosing(engine.generate(request)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert engine.load().running == 0
        job = asyncio.create_task(complete(engine))
        await asyncio.sleep(0.05)
        await engine.close()
        with pytest.raises(Unavailable, match="was stopped"):
            await job
        with pytest.raises(Unavailable, match="is stopping"):
            await complete(engine)
    over.set()


async def test_tokens_are_counted_where_the_endpoint_does(endpoint: Endpoint) -> None:
    async with opened(endpoint.url) as engine:
        with pytest.raises(Unimplemented, match="has no /tokenize"):
            await engine.count_tokens(["a"])
        with pytest.raises(InvalidArgument, match=r"sampling\.max_tokens: is 0"):
            await complete(engine, sampling=Sampling())
    endpoint.tokens = 14
    async with opened(endpoint.url, max_context=50) as engine:
        assert await engine.count_tokens(["a", "b"]) == [14, 14]
        assert engine.model.context_length == 50
        await complete(engine, sampling=Sampling())
        endpoint.tokens = 50
        with pytest.raises(InvalidArgument, match="prompt: has 50 tokens, but the model's context has 50"):
            await complete(engine, sampling=Sampling())
    assert endpoint.asked[0]["max_tokens"] == 36


EXPOSED = b"""\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 7.0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 987654.0
"""


async def exposed() -> str:
    """Return this process's metrics as Prometheus would read them."""
    return (await asyncio.to_thread(generate_latest)).decode()


async def test_the_endpoints_own_metrics_are_passed_through_once(endpoint: Endpoint) -> None:
    endpoint.metrics = EXPOSED
    endpoint.models = [{"id": "m"}, {"id": "n"}]
    async with opened(endpoint.url), opened(endpoint.url, "n"):
        found = await exposed()
        assert found.count('vllm:num_requests_waiting{engine="0",model_name="m"} 3.0\n') == 1
        assert found.count('vllm:prefix_cache_hits_total{engine="0",model_name="m"} 7.0\n') == 1
        assert f'engine_metrics_up{{endpoint="{endpoint.url}"}} 1.0' in found
        assert "process_cpu_seconds_total 987654.0" not in found
    found = await exposed()
    assert "vllm:" not in found
    assert "engine_metrics_up{" not in found


async def test_times_in_the_endpoints_metrics_are_not_passed_through(endpoint: Endpoint) -> None:
    endpoint.metrics = b"vllm:a 1 nan\nvllm:b 2 inf\nvllm:c 3 1000\n"
    async with opened(endpoint.url):
        assert "vllm:c 3.0\n" in await exposed()


async def test_an_endpoint_that_sends_its_metrics_slowly_does_not_hold_up_the_others(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.metrics = EXPOSED
    async with opened(endpoint.url):
        monkeypatch.setattr("codealign.inference.engines.openai.endpoint._METRICS_SECONDS", 0.3)
        endpoint.pause = 0.1
        assert f'engine_metrics_up{{endpoint="{endpoint.url}"}} 0.0' in await exposed()


async def test_numbers_of_tokens_that_cannot_be_are_not_counted(endpoint: Endpoint) -> None:
    usage = {"prompt_tokens": -1, "completion_tokens": 10**30, "prompt_tokens_details": {"cached_tokens": True}}
    choice = {"text": "text", "finish_reason": "stop"}
    endpoint.answer = lambda handler: handler.send(200, {"choices": [choice], "usage": usage})
    async with opened(endpoint.url) as engine:
        (one,) = await complete(engine)
    assert (one.prompt_tokens, one.cached_prompt_tokens, one.generated_tokens) == (0, None, 0)


@pytest.mark.parametrize("instead", [None, b'{"not": 1', b"vllm:x 1\n" * 600_000], ids=["gone", "invalid", "huge"])
async def test_an_endpoint_without_usable_metrics_hides_no_other(endpoint: Endpoint, instead: bytes | None) -> None:
    endpoint.metrics = EXPOSED
    async with opened(endpoint.url):
        endpoint.metrics = instead
        found = await exposed()
        assert f'engine_metrics_up{{endpoint="{endpoint.url}"}} 0.0' in found
        assert "codealign_inference_tokens_total" in found
        assert "vllm:" not in found.replace("(vllm:*)", "")


async def test_the_revision_is_of_what_is_known(endpoint: Endpoint) -> None:
    revisions = []
    for entry in ({"created": 1}, {"created": 2, "permission": [{"id": "random"}]}, {"root": "other weights"}):
        endpoint.models = [{"id": "m", **entry}]
        async with opened(endpoint.url) as engine:
            revisions.append(engine.model.revision)
    assert revisions[0] == revisions[1] != revisions[2]
    async with opened(endpoint.url, openai_api="chat") as engine:
        assert engine.model.revision not in revisions, "a prompt gets other completions in a chat"
    endpoint.models = None  # without a list, the name is accepted as given
    async with opened(endpoint.url, "some/model") as engine:
        assert (engine.model.name, engine.model.engine) == ("some/model", "openai")
        assert engine.model.context_length == 0


async def test_an_endpoint_that_cannot_serve_is_refused_at_the_start(endpoint: Endpoint) -> None:
    with pytest.raises(ConfigurationError, match="has no model x; available: m"):
        open_engine(settings(endpoint.url), "x")
    endpoint.key = "another"
    with pytest.raises(ConfigurationError, match="wrong key; check CODEALIGN_INFERENCE_OPENAI_API_KEY") as caught:
        open_engine(settings(endpoint.url), "m")
    assert KEY not in str(caught.value)
    with pytest.raises(SourceUnreachable, match="does not respond"):
        open_engine(settings("http://127.0.0.1:9/v1"), "m")
    endpoint.key = KEY
    with pytest.raises(FailedPrecondition, match="not 1234"):
        open_engine(settings(endpoint.url), "m", "", "1234")
    assert KEY not in repr(settings(endpoint.url))


@pytest.fixture(scope="module")
def vllm_url(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Iterator[str]:
    """vLLM's own server with a tiny model."""
    python = Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python"
    if not python.exists():
        if os.environ.get("CI"):
            pytest.fail("CI without .venv-vllm: run `make setup-vllm`")
        pytest.skip("run `make setup-vllm`")
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512}
    model = make_model(tmp_path_factory.mktemp("models") / "tiny", **sizes)
    port = free_port()
    flags = ["--enforce-eager", "--dtype", "float32", "--no-enable-chunked-prefill", "--enable-prompt-tokens-details"]
    log = tmp_path_factory.mktemp("log") / "log"
    arguments = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *flags]
    arguments += ["--served-model-name", "tiny", "--port", str(port), "--host", "127.0.0.1"]
    arguments += ["--kv-cache-memory-bytes", str(2**27), "--max-num-batched-tokens", "2048"]
    variables = {"VLLM_CPU_OMP_THREADS_BIND": "0,1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, env={**os.environ, **variables}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_vllms_own_server_is_such_an_endpoint(vllm_url: str) -> None:
    async with opened(vllm_url, "tiny") as engine:
        assert "vllm:num_requests_running{" in await exposed()
        assert engine.model.context_length == 512
        assert await engine.count_tokens(["", "def add"]) == [0, 2]
        first, second, again = await complete(
            engine, sampling=Sampling(temperature=1.0, max_tokens=20), seeds=(1, 2, 1)
        )
        assert first.text == again.text != second.text
        assert (first.finish_reason, first.generated_tokens, first.prompt_tokens) == (FinishReason.LENGTH, 20, 2)
        [greedy] = await complete(engine, sampling=Sampling(max_tokens=40))
        stop = greedy.text[6:12]
        [stopped] = await complete(engine, sampling=Sampling(max_tokens=40, stop=("never", stop)))
        assert stopped.text == greedy.text[: greedy.text.index(stop)]
        assert (stopped.finish_reason, stopped.stop_string) == (FinishReason.STOP_STRING, stop)
        [chat] = await complete(engine, (ChatMessage("user", "def add"),), Sampling(max_tokens=12))
        [plain] = await complete(engine, "<user>def add\n<assistant>", Sampling(max_tokens=12))
        assert chat.text == plain.text
        begun = (ChatMessage("user", "def add"), ChatMessage("assistant", "return a"))
        [chat] = await complete(engine, begun, Sampling(max_tokens=12))
        [plain] = await complete(engine, "<user>def add\n<assistant>return a", Sampling(max_tokens=12))
        assert chat.text == plain.text
        [long] = await complete(engine, "def add(a, b): " * 40, Sampling(max_tokens=1))
        [cached] = await complete(engine, "def add(a, b): " * 40 + "x", Sampling(max_tokens=1))
        assert (long.cached_prompt_tokens or 0) < 128 <= (cached.cached_prompt_tokens or 0)
        [unbounded] = await complete(engine, sampling=Sampling(temperature=1.5), seeds=(3,))
        assert unbounded.prompt_tokens + unbounded.generated_tokens <= 512
        with pytest.raises(InvalidArgument, match=r"prompt: the endpoint returned 400: .*512"):
            await complete(engine, "def add " * 600)
        revision = engine.model.revision
    async with opened(vllm_url, "tiny") as engine:
        assert engine.model.revision == revision


@pytest.mark.parametrize(
    ("untold", "expected", "said"),
    [
        ((200, {"tokens": [1]}), Internal, "returned no number of tokens"),
        ((200, {"count": "many"}), Internal, "many"),
        ((400, {"error": {"code": "content_filter", "message": "no"}}), InvalidArgument, "the endpoint returned 400"),
    ],
)
async def test_a_tokenizer_that_does_not_count_is_named(
    endpoint: Endpoint, untold: tuple[int, object], expected: type[CodeAlignError], said: str
) -> None:
    endpoint.tokens = 5
    async with opened(endpoint.url) as engine:
        endpoint.untold = untold
        with pytest.raises(expected, match=said):
            await engine.count_tokens(["a"])
        with pytest.raises(expected, match=said):
            await complete(engine, sampling=Sampling(max_tokens=0))


async def test_a_context_that_is_no_number_is_unknown(endpoint: Endpoint) -> None:
    endpoint.models = [{"id": "m", "max_model_len": "64"}, {"id": 7}]
    async with opened(endpoint.url) as engine:
        assert engine.model.context_length == 0
