"""Recorded completions are served again, whatever happened to the file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import ConfigurationError, NotFound
from codealign.inference.engines import recording_file
from codealign.inference.engines.base import (
    ChatMessage,
    Completion,
    Engine,
    FinishReason,
    GenerationRequest,
    Load,
    ModelInfo,
    Sample,
    Sampling,
)
from codealign.inference.engines.recording import RecordingEngine
from codealign.inference.engines.replay import ReplayEngine
from codealign.inference.engines.transformers.engine import TransformersEngine

Connect = Callable[[Engine], AbstractAsyncContextManager[Any]]

MODEL = ModelInfo("m", "/home/someone/models/m", "r1", "transformers", 64, "", False, "float32", "cpu", 10)
SAMPLING = Sampling(temperature=0.8, top_p=0.95, max_tokens=20, stop=("\n\n",))


class Counting:
    """An engine that counts its requests."""

    def __init__(self, model: ModelInfo = MODEL) -> None:
        self.model = model
        self.fault = ""
        self.asked = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion, None]:
        for sample in reversed(request.samples):
            self.asked += 1
            text = f"{self.asked} größer {sample.seed}\n"
            yield Completion(sample.attempt, sample.seed, text, FinishReason.STOP_STRING, "\n\n", 9, 3, 7, 0.12345)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def load(self) -> Load:
        return Load()

    async def close(self) -> None:
        pass


def request(*attempts: int, prompt: str = "first line\nsecond") -> GenerationRequest:
    return GenerationRequest(prompt, tuple(Sample(at, 100 + at) for at in attempts), SAMPLING)


async def completions(engine: Engine, wanted: GenerationRequest) -> list[Completion]:
    found = [completion async for completion in engine.generate(wanted)]
    return sorted(found, key=lambda completion: completion.attempt)


async def recorded(path: Path, *wanted: GenerationRequest) -> list[list[Completion]]:
    engine = RecordingEngine(Counting(), path)
    found = [await completions(engine, one) for one in wanted]
    await engine.close()
    return found


async def test_a_replay_over_grpc_equals_the_recorded_run(
    engine: TransformersEngine, connect: Connect, tmp_path: Path
) -> None:
    wire = [
        pb.GenerateRequest(
            prompt=prompt,
            samples=[pb.Sample(attempt=at, seed=2**63 + at) for at in range(3)],
            sampling=pb.SamplingParameters(temperature=1.0, top_p=top_p, max_tokens=12, stop=["a", "}"]),
        )
        for prompt in ("def add", "größer 你好\n")
        for top_p in (0.0, 0.9)
    ]
    chat = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content="hi")])
    wire.append(pb.GenerateRequest(chat=chat, samples=wire[0].samples, sampling=wire[0].sampling))

    async def run(stub: Any) -> list[list[pb.GenerateResponse]]:
        answers = []
        for one in wire:
            answer = [response async for response in stub.Generate(one)]
            answers.append(sorted(answer, key=lambda response: response.completion.attempt))
        return answers

    path = tmp_path / "deep" / "run.jsonl"
    recording = RecordingEngine(engine, path)
    async with connect(recording) as stub:
        first = await run(stub)
        model = (await stub.GetModel(pb.GetModelRequest())).model
    await recording.close()
    async with connect(ReplayEngine(path)) as stub:
        assert await run(stub) == first
        replayed = (await stub.GetModel(pb.GetModelRequest(name="tiny"))).model
        load = await stub.GetLoad(pb.GetLoadRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CountTokens(pb.CountTokensRequest(texts=["a"]))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (replayed.engine, replayed.batch_invariant, replayed.source) == ("replay", True, "tiny")
    for field in ("name", "revision", "context_length", "chat_template", "dtype"):
        assert getattr(replayed, field) == getattr(model, field)
    assert load.generated_tokens == sum(one.completion.generated_tokens for answer in first for one in answer)


async def test_a_recording_holds_no_path_and_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    await recorded(path, request(0, prompt="first line\nthe prompt's secret"))
    header, line = path.read_text().splitlines()
    assert json.loads(header)["model"]["source"] == "m"
    assert "someone" not in header
    assert "secret" not in line
    entry = json.loads(line)
    assert (entry["prompt_first_line"], entry["prompt_chars"]) == ("first line", 30)
    assert list(entry)[:4] == ["prompt_sha256", "prompt_first_line", "prompt_chars", "sampling"]


async def test_what_is_recorded_is_not_generated_or_written_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    [first] = await recorded(path, request(0, 1))
    inner = Counting()
    engine = RecordingEngine(inner, path)
    again = await completions(engine, request(0, 1, 2))
    await engine.close()
    assert again[:2] == first
    assert inner.asked == 1
    assert len(path.read_text().splitlines()) == 4


async def test_the_first_of_two_answers_at_the_same_time_stands(tmp_path: Path) -> None:
    engine = RecordingEngine(Counting(), tmp_path / "r.jsonl")
    async with aclosing(engine.generate(request(0, 1))) as slow:
        await anext(slow)
        [other] = await completions(engine, request(0))
        assert [completion async for completion in slow] == [other]
    await engine.close()
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 2, 40])
async def test_a_torn_last_line_is_left_out_and_repaired(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.jsonl"
    [[kept, lost]] = await recorded(path, request(0, 1))
    whole = path.read_bytes()
    # Written in order of completion: attempt 1 first.
    kept, lost = lost, kept
    path.write_bytes(whole[:-cut])
    replay = ReplayEngine(path)
    assert await completions(replay, request(1)) == [kept]
    with pytest.raises(NotFound):
        await completions(replay, request(0))
    await recorded(path, request(0, 1))
    assert len(path.read_bytes().splitlines()) == 3
    assert [one.attempt for one in await completions(ReplayEngine(path), request(0, 1))] == [0, 1]
    assert lost.attempt == 0


async def test_a_torn_first_line_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"codealign_recor')
    await recorded(path, request(0))
    assert len(await completions(ReplayEngine(path), request(0))) == 1


async def test_a_killed_writer_loses_nothing_that_it_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    program = (
        "import asyncio, os, signal, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_recording import Counting, RecordingEngine, request\n"
        "async def main():\n"
        "    async for completion in RecordingEngine(Counting(), Path(sys.argv[1])).generate(request(*range(50))):\n"
        "        if completion.attempt == 20:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    arguments = [sys.executable, "-c", program, str(path), str(Path(__file__).parent)]
    process = await asyncio.to_thread(subprocess.run, arguments, env={**os.environ}, check=False)
    assert process.returncode == -signal.SIGKILL
    assert len(await completions(ReplayEngine(path), request(*range(20, 50)))) == 30


async def test_two_processes_do_not_record_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    engine = RecordingEngine(Counting(), path)
    with pytest.raises(ConfigurationError, match="another process is recording to"):
        RecordingEngine(Counting(), path)
    await engine.close()
    await RecordingEngine(Counting(), path).close()


@pytest.mark.parametrize("change", [{"revision": "r2"}, {"dtype": "bfloat16"}, {"context_length": 32}])
async def test_another_model_is_not_recorded_to_the_same_file(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "r.jsonl"
    await recorded(path, request(0))
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        RecordingEngine(Counting(replace(MODEL, **change)), path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line", ["{}", "nonsense", "[]", '{"prompt_sha256": 1, "sampling": {}}', '{"prompt_sha256": "a", "sampling": null}']
)
async def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "r.jsonl"
    await recorded(path, request(0))
    with path.open("a") as stream:
        stream.write(line + "\n")
    await_error = pytest.raises(ConfigurationError, match=r"r\.jsonl is damaged in line 3")
    with await_error:
        ReplayEngine(path)
    with await_error:
        RecordingEngine(Counting(), path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{}\n", "damaged in line 1"),
        ('{"codealign_recording": 99, "model": {}}\n', "format is 99, but this program reads format 1"),
        ('{"codealign_recording": 1, "model": {"name": "m"}}\n', "damaged in line 1"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        ReplayEngine(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ReplayEngine(tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        RecordingEngine(Counting(), tmp_path)


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    await recorded(path, request(0))
    replay = ReplayEngine(path)
    with pytest.raises(NotFound, match=r"r\.jsonl does not have this prompt: .* first line 'other text'"):
        await completions(replay, request(0, prompt="other text"))
    with pytest.raises(
        NotFound, match=r"has 1 completions of this prompt, but not this sample: .* attempt 5, seed 105"
    ):
        await completions(replay, request(0, 5))
    with pytest.raises(NotFound, match="has this prompt only with other sampling parameters"):
        await completions(replay, replace(request(0), sampling=Sampling()))
    with pytest.raises(NotFound, match="first line 'hi'"):
        await completions(replay, replace(request(0), prompt=(ChatMessage("user", "hi"),)))


async def test_a_refused_completion_is_kept_with_what_was_said(tmp_path: Path, connect: Connect) -> None:
    filtered = Completion(0, 100, "", FinishReason.CONTENT_FILTER, "", 0, 0, 0, 0.1, detail="policy")
    called = Completion(1, 101, "", FinishReason.TOOL_CALL, "", 0, 0, 0, 0.1, detail="finish_reason tool_calls")
    plain = Completion(2, 102, "text", FinishReason.LENGTH, "", 0, 0, 0, 0.1)
    wanted = request(0, 1, 2)
    lines = [recording_file.completion_line(wanted, one) for one in (filtered, called, plain)]
    path = tmp_path / "run.jsonl"
    older = lines[2].replace(', "detail": ""', "")
    assert older != lines[2], "recordings of before tell no detail"
    path.write_text("".join([recording_file.header_line(MODEL), *lines[:2], older]))
    engine = ReplayEngine(path)
    assert await completions(engine, wanted) == [filtered, called, plain]
    asked = pb.GenerateRequest(
        prompt="first line\nsecond",
        samples=[pb.Sample(attempt=at, seed=100 + at) for at in range(2)],
        sampling=pb.SamplingParameters(temperature=0.8, top_p=0.95, max_tokens=20, stop=["\n\n"]),
    )
    async with connect(engine) as stub:
        sent = [response.completion async for response in stub.Generate(asked)]
    assert [(one.finish_reason, one.detail) for one in sent] == [
        (pb.FINISH_REASON_CONTENT_FILTER, "policy"),
        (pb.FINISH_REASON_TOOL_CALL, "finish_reason tool_calls"),
    ]
