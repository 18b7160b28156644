"""Stop strings: every engine ends a completion at the same place, and truncated completions are recognized.

A case of `stops.jsonl` has the text that a model would write without stop strings (`written`), whether it ends by
itself or at the limit (`end`), and the expected result: the section's text (`wanted`) or the reason for its rejection
(`rejected`). Some endpoints do not report which stop string they reached; `untold` is the result then, if it differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.coordinator.pipelines.selfcodealign import concepts, instructions, responses
from codealign.coordinator.reading import sections
from codealign.coordinator.reading.parsing import Rejected
from codealign.inference.engine_opener import open_engine
from codealign.inference.engines import recording_file
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, ModelInfo, Sample, Sampling
from codealign.inference.engines.openai.engine import OpenAIEngine
from codealign.inference.engines.replay import ReplayEngine
from codealign.inference.settings import InferenceSettings

Case = dict[str, Any]
CASES: list[Case] = [json.loads(line) for line in (Path(__file__).parent / "stops.jsonl").read_text().splitlines()]
SECTIONS = {"concepts": concepts.SECTION, "instruction": instructions.SECTION, "response": responses.SECTION}
NANO = Path(__file__).parents[2] / "trainer/nano/src/codealign/nano/data/model"
SAMPLE = Sample(0, 7)
END = -1
each_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def stop_of(case: Case) -> tuple[str, ...]:
    return SECTIONS[case["section"]].stop(case["few_shots"])


def request_of(case: Case) -> GenerationRequest:
    return GenerationRequest(case["name"], (SAMPLE,), Sampling(max_tokens=4096, stop=stop_of(case)))


def reference(case: Case) -> Completion:
    """Return an engine's expected answer: the text before the first stop string."""
    written, reached = case["written"], ""
    hits = [(at, one) for one in stop_of(case) if (at := written.find(one)) >= 0]
    reason = FinishReason.LENGTH if case["end"] == "length" else FinishReason.END_TOKEN
    if hits:
        at, reached = min(hits)
        written, reason = written[:at], FinishReason.STOP_STRING
    return Completion(0, SAMPLE.seed, written, reason, reached, 0, 0, 0, 0.0)


def ended(completion: Completion) -> tuple[str, FinishReason, str]:
    return completion.text, completion.finish_reason, completion.stop_string


def read(case: Case, completion: Completion) -> Case:
    """Parse a completion as the coordinator does."""
    sent = inf.Completion(
        text=completion.text,
        finish_reason=inf.FinishReason.Value(f"FINISH_REASON_{completion.finish_reason.name}"),
        stop_string=completion.stop_string,
    )
    found = sections.read(sent, SECTIONS[case["section"]], case["few_shots"])
    return {"rejected": found.reason} if isinstance(found, Rejected) else {"wanted": found.strip()}


def outcome(case: Case) -> Case:
    return {"rejected": case["rejected"]} if "rejected" in case else {"wanted": case["wanted"].strip()}


def untold(case: Case) -> Case:
    given: Case = case.get("untold", outcome(case))
    return {"wanted": given["wanted"].strip()} if "wanted" in given else given


def test_stop_strings_are_few_and_begin_a_line() -> None:
    for section in SECTIONS.values():
        for few_shots in (1, 8):
            stop = section.stop(few_shots)
            assert len(stop) <= 4, "OpenAI's endpoints allow no more"
            assert all(one.startswith("\n") for one in stop)


def test_the_next_example_begins_as_the_prompt_goes_on() -> None:
    assert concepts.suffix(3, "x").startswith(concepts.SECTION.next_example(1).removeprefix("\n"))
    suffix = instructions.suffix(10, "c", "l", "d", ("x",))
    assert suffix.startswith(instructions.SECTION.next_example(8).removeprefix("\n"))
    assert responses.suffix(3, "x").startswith(responses.SECTION.next_example(1).removeprefix("\n"))


@each_case
def test_what_is_whole_is_read_and_what_was_cut_is_rejected(case: Case) -> None:
    assert read(case, reference(case)) == outcome(case)


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(NANO))


def whole_words(text: str) -> list[int]:
    ids: list[int] = tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


def characters(text: str) -> list[int]:
    """Return a token for each character, or for each of its bytes, so that every stop string is split."""
    return [token for character in text for token in whole_words(character)]


@pytest.mark.model
@each_case
@pytest.mark.parametrize("tokens", [whole_words, characters])
def test_transformers(case: Case, tokens: Callable[[str], list[int]]) -> None:
    from codealign.inference.engines.transformers.continuation import detokenizer
    from codealign.inference.engines.transformers.job import Job, Row

    ids = tokens(case["written"])
    limited = case["end"] == "length"
    job = Job(
        whole_words("a prompt\n"),
        [SAMPLE],
        request_of(case).sampling,
        limit=len(ids) if limited else len(ids) + 1,
        prefix_tokens=0,
        arrival=0.0,
        deliver=lambda _: None,
    )
    row = Row(job, SAMPLE, detokenizer(tokenizer()), 0)
    given = ids if limited else [*ids, END]
    assert any(row.take(token, frozenset({END})) for token in given)
    found = row.completion()
    assert ended(found) == ended(reference(case))
    assert found.generated_tokens <= len(given)


class Handler(BaseHTTPRequestHandler):
    """Writes a case's text, and ends it in the endpoint's way."""

    server: Endpoint

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "stop" not in asked:
            self.send_error(404)
            return
        case = next(case for case in CASES if case["name"] == asked["prompt"])
        assert tuple(asked["stop"]) == stop_of(case)
        whole = reference(case)
        reason = "length" if whole.finish_reason is FinishReason.LENGTH else "stop"
        choice: dict[str, Any] = {"text": whole.text, "finish_reason": reason}
        match self.server.manner:
            case "tells":
                choice["stop_reason"] = whole.stop_string or None
            case "tells in SGLang's field":
                choice["matched_stop"] = whole.stop_string or 7
            case "leaves it in":
                choice["text"] += whole.stop_string
            case "ignores it":
                reason = "length" if case["end"] == "length" else "stop"
                choice = {"text": case["written"], "finish_reason": reason, "stop_reason": None}
        self._send({"choices": [choice]})

    def _send(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Endpoint(ThreadingHTTPServer):
    """A small endpoint on a free port."""

    daemon_threads = True
    manner = ""


async def completions(manner: str) -> list[Completion]:
    """Return the engine openai's completions of all cases, with an endpoint of this kind."""
    endpoint = Endpoint(("127.0.0.1", 0), Handler)
    endpoint.manner = manner
    thread = Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    try:
        base_url = f"http://127.0.0.1:{endpoint.server_port}/v1"
        engine = open_engine(InferenceSettings(engine="openai", openai_base_url=base_url), "m")
        assert isinstance(engine, OpenAIEngine)
        found = [completion for case in CASES async for completion in engine.generate(request_of(case))]
        await engine.close()
        return found
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()


@pytest.mark.parametrize("manner", ["tells", "tells in SGLang's field", "ignores it"])
async def test_openai_where_the_endpoint_tells(manner: str) -> None:
    for case, found in zip(CASES, await completions(manner), strict=True):
        assert ended(found) == ended(reference(case)), case["name"]


async def test_openai_where_the_endpoint_leaves_the_stop_string_in() -> None:
    for case, found in zip(CASES, await completions("leaves it in"), strict=True):
        assert found.text == reference(case).text, case["name"]
        assert read(case, found) == outcome(case), case["name"]


async def test_openai_where_the_endpoint_tells_nothing() -> None:
    for case, found in zip(CASES, await completions("tells nothing"), strict=True):
        assert found.text == reference(case).text, case["name"]
        assert found.stop_string == ""
        assert read(case, found) == untold(case), case["name"]


async def test_replay(tmp_path: Path) -> None:
    model = ModelInfo("m", "m", "r", "test", 64, "", True, "float32", "cpu", 1)
    lines = [recording_file.completion_line(request_of(case), reference(case)) for case in CASES]
    path = tmp_path / "recording.jsonl"
    path.write_text("".join([recording_file.header_line(model), *lines]))
    engine = ReplayEngine(path)
    for case in CASES:
        [found] = [completion async for completion in engine.generate(request_of(case))]
        assert ended(found) == ended(reference(case)), case["name"]
