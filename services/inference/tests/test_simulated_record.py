"""A profile contains what the recordings contain, and programs run only in the sandbox."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common.errors import ConfigurationError
from codealign.inference.engines import recording_file
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, ModelInfo, Sample, Sampling
from codealign.inference.engines.simulated import profile, record

MODEL = ModelInfo("m", "/home/someone/m", "r1", "transformers", 2048, "", False, "float32", "cpu", 10)
LIST, TASK, ANSWER = ("\n</concepts>",), ("\n</task>",), ("\n```\n</tests>",)
CODE = "Because.\n\n```python\ndef f(): return {}\n```\n</answer>\n<tests>\n```python\nassert f()"


class Sandbox(rpc.SandboxServiceServicer):
    """Returns the verdict named by the code's last word."""

    def __init__(self) -> None:
        self.asked: list[pb.Program] = []

    async def Execute(self, request: pb.ExecuteRequest, context: Any) -> pb.ExecuteResponse:
        self.asked.append(request.program)
        return pb.ExecuteResponse(result=pb.Result(verdict=pb.Verdict.Value(request.program.code.split()[-1])))


@pytest.fixture
async def sandbox() -> AsyncIterator[tuple[Sandbox, str]]:
    server, servicer = grpc.aio.server(), Sandbox()  # type: ignore[abstract]
    rpc.add_SandboxServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(0)


def recording(path: Path, *entries: tuple[str, tuple[str, ...], str, FinishReason], model: ModelInfo = MODEL) -> Path:
    lines = [recording_file.header_line(model)]
    for number, (prompt, stop, text, reason) in enumerate(entries):
        request = GenerationRequest(prompt, (Sample(number, number),), Sampling(stop=stop))
        tokens = 4 + number
        ended = stop[0] if reason is FinishReason.STOP_STRING else ""
        completion = Completion(number, number, text, reason, ended, len(prompt) // 2, 0, tokens, tokens / 10)
        lines.append(recording_file.completion_line(request, completion))
    path.write_text("".join(lines))
    return path


STOPPED, CUT = FinishReason.STOP_STRING, FinishReason.LENGTH
ENTRIES = [
    ("concepts?", LIST, "loops, lists", STOPPED),
    ("task?", TASK, "Write `f()`, which returns.", STOPPED),
    ("another task?", TASK, "Now write `f(x)`, which returns.", STOPPED),
    ("answer?", ANSWER, CODE.format("VERDICT_PASSED"), STOPPED),
    ("answer?", ANSWER, CODE.format("VERDICT_RAISED"), STOPPED),
    ("hard answer?", ANSWER, CODE.format("VERDICT_CRASHED"), STOPPED),
    ("hard answer?", ANSWER, CODE.format("VERDICT_TIMED_OUT"), STOPPED),
    ("hard answer?", ANSWER, "```python\nx = 1\n```\nThat is all.", STOPPED),
    ("hard answer?", ANSWER, "```python\nx = 1\n```\n</answer>\nNone.", STOPPED),
    ("hard answer?", ANSWER, CODE.format("VERDICT_PASSED"), CUT),
]


async def test_a_profile_holds_what_was_recorded_and_can_be_loaded(
    tmp_path: Path, sandbox: tuple[Sandbox, str]
) -> None:
    servicer, address = sandbox
    made = await record.make([recording(tmp_path / "r.jsonl", *ENTRIES)], "mine", address)
    assert len(servicer.asked) == 4, "what was cut, or has no tests, is not executed"
    assert servicer.asked[0].tests.strip() == "assert f()"
    (tmp_path / "mine.json").write_text(json.dumps(made))
    loaded = profile.load(str(tmp_path / "mine.json"))
    assert (loaded.name, loaded.context_length, loaded.repeats) == ("mine", 2048, 0.5)
    assert loaded.failures == pytest.approx(
        {"raised": 2 / 6, **dict.fromkeys(("timed-out", "no-answer-end", "no-tests-section", "cut-off"), 1 / 6)},
        abs=1e-3,
    )
    assert made["passed"] == pytest.approx(1 / 7, abs=1e-4)
    assert (loaded.pass_rates[0], loaded.pass_rates[-1]) == (0.0, 0.5)
    assert (loaded.kinds["list"].tokens[0], loaded.kinds["answer"].tokens[-1]) == (4, 12)
    assert loaded.kinds["prose"].seconds_per_token[0] == pytest.approx(0.1)
    assert loaded.kinds["answer"].cut_off == pytest.approx(1 / 7, abs=1e-4)


async def test_recordings_of_two_models_make_no_profile(tmp_path: Path, sandbox: tuple[Sandbox, str]) -> None:
    paths = [
        recording(tmp_path / "a.jsonl", *ENTRIES),
        recording(tmp_path / "b.jsonl", *ENTRIES, model=replace(MODEL, revision="r2")),
    ]
    with pytest.raises(ConfigurationError, match="are of 2 models"):
        await record.make(paths, "mine", sandbox[1])


async def test_a_recording_without_answers_makes_no_profile(tmp_path: Path, sandbox: tuple[Sandbox, str]) -> None:
    with pytest.raises(ConfigurationError, match="a profile needs all three"):
        await record.make([recording(tmp_path / "a.jsonl", *ENTRIES[:3])], "mine", sandbox[1])


async def test_what_the_sandbox_could_not_run_is_no_failure_of_the_model(
    tmp_path: Path, sandbox: tuple[Sandbox, str]
) -> None:
    path = recording(tmp_path / "a.jsonl", ("a?", ANSWER, CODE.format("VERDICT_INFRASTRUCTURE"), STOPPED))
    with pytest.raises(ConfigurationError, match="the sandbox failed"):
        await record.make([path], "mine", sandbox[1])
