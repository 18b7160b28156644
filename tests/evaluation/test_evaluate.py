"""Evaluations over real services: dataset, gVisor sandbox, inference from a recording, coordinator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.clients import NO_RETRY, Addresses, Clients
from codealign.common.errors import violated_fields
from codealign.coordinator.evaluation import benchmarks, prompts
from codealign.coordinator.evaluation.request import checked, sample_seed
from codealign.coordinator.runs.config import run_records, with_defaults
from codealign.inference.engines import recording_file
from codealign.inference.engines.base import (
    ChatMessage,
    Completion,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    Sample,
    Sampling,
)

pytestmark = [pytest.mark.gvisor, pytest.mark.timeout(240)]
PROBLEMS = 12
TOKENS = 7
"""Generated tokens of each recorded completion."""
Running = Callable[..., AbstractContextManager[Any]]


def row(number: int) -> dict[str, Any]:
    """Return a problem in EvalPlus' layout: x + number, with negative numbers among the plus inputs."""
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f'\ndef add_{number}(x):\n    """ Add {number} to x.\n    """\n',
        "entry_point": f"add_{number}",
        "canonical_solution": f"    return x + {number}\n",
        "base_input": [[0], [1], [2.5]],
        "plus_input": [[-1], [-10], [10**30]],
        "atol": 0,
    }


def body(number: int, attempt: int, samples: int) -> str:
    """Return a right, partly wrong, wrong, or endless solution, in a fixed pattern."""
    pattern = (number + attempt) % 4 if samples > 1 else number % 4
    bodies = (
        f"    return x + {number}\n",
        f"    return abs(x) + {number}\n",
        f"    return x + {number}\n",
        "    return None\n" if number % 8 == 3 else "    return x.missing\n",
    )
    return bodies[pattern]


def recording(path: Path, name: str, data: Path, requests: Sequence[api.EvaluateRequest], good: bool) -> str:
    """Write a model's answers to these requests and return its revision."""
    revision = name.encode().hex().ljust(64, "0")
    model = ModelInfo(name, name, revision, "test", 2048, "{{ messages }}", True, "float32", "cpu", 1)
    lines = [recording_file.header_line(model)]
    for request in requests:
        asked = checked(request.settings)
        for problem in benchmarks.load("humaneval", data).problems:
            question = prompts.ask(problem, asked.style)
            prompt = tuple(ChatMessage(*turn) for turn in question.messages) or question.text
            sampling = Sampling(temperature=asked.temperature, max_tokens=asked.max_tokens, stop=question.stop)
            number = int(problem.problem_id.split("/")[1])
            for attempt in range(asked.samples):
                sample = Sample(attempt, sample_seed(asked, problem.problem_id, attempt))
                text = body(number, attempt, asked.samples) if not good else f"    return x + {number}\n"
                if asked.style == prompts.TUNED:
                    text = f"def add_{number}(x):\n{text}"
                given = Completion(attempt, sample.seed, text, FinishReason.END_TOKEN, "", 30, 0, TOKENS, 0.01)
                lines.append(recording_file.completion_line(GenerationRequest(prompt, (sample,), sampling), given))
    path.write_text("".join(lines))
    return revision


def ask(style: str = "base", **fields: Any) -> api.EvaluateRequest:
    given = {"benchmarks": ["humaneval", "humaneval+"], "prompt_style": style, "max_tokens": 64, **fields}
    return api.EvaluateRequest(settings=pb.EvaluationSettings(**given))


GREEDY, TUNED = ask(), ask("tuned")
SAMPLED = ask(samples=4, temperature=0.5, seed=3)


@dataclass
class Stack:
    """All services except the coordinator."""

    folder: Path
    data: Path
    addresses: dict[str, str]
    revisions: dict[str, str]

    def coordinator(self, model: str = "base", data: Path | None = None) -> dict[str, str]:
        """Return the environment of a coordinator that uses this model."""
        return {
            "INFERENCE_ADDRESS": self.addresses[model],
            "SANDBOX_ADDRESS": self.addresses["sandbox"],
            "DATASET_ADDRESS": self.addresses["dataset"],
            "EVALUATION_DATA": str(data or self.data),
            "EXECUTIONS_IN_FLIGHT": "3",
        }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, running: Running, sandbox: str) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("evaluate")
    data = folder / "data"
    data.mkdir()
    (data / "HumanEvalPlus.jsonl").write_text("".join(f"{json.dumps(row(number))}\n" for number in range(PROBLEMS)))
    revisions, addresses = {}, {"sandbox": sandbox}
    with ExitStack() as up:
        for name, good in (("base", False), ("tuned", True)):
            file = folder / f"{name}.jsonl"
            revisions[name] = recording(file, name, data, [GREEDY, TUNED, SAMPLED], good)
            settings = {"ENGINE": "replay", "MODEL": str(file)}
            addresses[name] = up.enter_context(running("inference", folder / name, **settings)).address
        store = up.enter_context(running("dataset", folder / "store", DATA_DIR=str(folder / "records")))
        addresses["dataset"] = store.address
        yield Stack(folder, data, addresses, revisions)


@asynccontextmanager
async def clients(stack: Stack, coordinator: str) -> AsyncIterator[Clients]:
    addresses = Addresses(
        coordinator=coordinator, dataset=stack.addresses["dataset"], inference=stack.addresses["base"]
    )
    async with Clients(addresses) as connected:
        yield connected


@pytest.fixture
async def services(stack: Stack, running: Running) -> AsyncIterator[Clients]:
    with running("coordinator", stack.folder / "coordinator", **stack.coordinator()) as coordinator:
        async with clients(stack, coordinator.address) as connected:
            yield connected


async def evaluate(services: Clients, request: api.EvaluateRequest) -> list[api.EvaluateResponse]:
    stream = services.stream(services.coordinator.Evaluate, request, timeout=120, retry=NO_RETRY)
    return [message async for message in stream]


def evaluations(messages: Sequence[api.EvaluateResponse]) -> dict[str, api.Evaluation]:
    return {message.benchmark: message.evaluation for message in messages if message.HasField("evaluation")}


async def results(services: Clients, evaluation_id: str) -> list[pb.Record]:
    request = dataset.ScanRequest(kind=pb.KIND_EVALUATION_RESULT, stage_config_id=evaluation_id, page_size=1000)
    return list((await services.call(services.dataset.Scan, request)).records)


async def generated(services: Clients) -> int:
    load = await services.call(services.inference.GetLoad, inf.GetLoadRequest())
    return load.generated_tokens


async def test_a_greedy_evaluation_tells_right_from_wrong_and_is_done_once(services: Clients) -> None:
    before = await generated(services)
    messages = await evaluate(services, GREEDY)
    assert await generated(services) - before == PROBLEMS * TOKENS, "both benchmarks share their completions"
    found = evaluations(messages)
    # Of four solutions, two are right, one is wrong on negative inputs only, and one is wrong.
    assert found["humaneval"].pass_at_k == {1: 0.75}
    assert found["humaneval+"].pass_at_k == {1: 0.5}
    plus = found["humaneval+"]
    assert (plus.problems_total, plus.problems_done, plus.undecided, plus.samples) == (PROBLEMS, PROBLEMS, 0, 1)
    assert dict(plus.verdicts) == {"PASSED": 6, "FAILED_ASSERTION": 5, "RAISED": 1}
    assert plus.intervals[1].low < 0.5 < plus.intervals[1].high
    assert {score.problem_id: score.passed for score in plus.scores}["HumanEval/1"] == 0

    records = await results(services, plus.id)
    assert len(records) == PROBLEMS
    passed = next(record for record in records if record.evaluation_result.problem_id == "HumanEval/0")
    assert passed.evaluation_result.result.assertions_executed == 6
    assert passed.evaluation_result.solution == 'def add_0(x):\n    """ Add 0 to x.\n    """\n    return x + 0\n'
    wrong = next(record for record in records if record.evaluation_result.problem_id == "HumanEval/1")
    assert "input 0 (plus): expected 0 (int), got 2 (int)" in wrong.evaluation_result.result.detail
    assert {record.evaluation_result.problem_id for record in records} == {f"HumanEval/{n}" for n in range(PROBLEMS)}

    before = await generated(services)
    again = await evaluate(services, GREEDY)
    assert await generated(services) == before
    assert evaluations(again) == found
    assert all(message.problems_reused == PROBLEMS for message in again)
    assert await results(services, plus.id) == records


async def test_an_answer_that_was_refused_is_a_failed_sample_and_ends_nothing(stack: Stack, running: Running) -> None:
    whole = (stack.folder / "base.jsonl").read_text().splitlines()
    refused = {"text": "", "finish_reason": "content_filter", "detail": "finish_reason content_filter"}
    lines = [json.loads(line) for line in whole]
    lines[1] |= refused
    lines[2] |= refused | {"finish_reason": "tool_call", "detail": "finish_reason tool_calls"}
    lines[0]["model"]["revision"] = "f" * 64
    file = stack.folder / "refused.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with ExitStack() as up:
        inference = up.enter_context(running("inference", stack.folder / "refused", ENGINE="replay", MODEL=str(file)))
        settings = stack.coordinator() | {"INFERENCE_ADDRESS": inference.address}
        coordinator = up.enter_context(running("coordinator", stack.folder / "refusing", **settings))
        async with clients(stack, coordinator.address) as connected:
            found = evaluations(await evaluate(connected, GREEDY))["humaneval+"]
            by_problem = {one.evaluation_result.problem_id: one for one in await results(connected, found.id)}
    assert (found.problems_done, found.undecided, found.verdicts["REFUSED"]) == (PROBLEMS, 0, 2)
    for number, detail in ((0, "refused to write this: finish_reason content_filter"), (1, "called a tool")):
        body = by_problem[f"HumanEval/{number}"].evaluation_result
        assert detail in body.result.detail
        assert not body.passed
        assert (body.completion, body.solution) == ("", "")


async def test_a_solution_may_import_numpy(stack: Stack, running: Running) -> None:
    pytest.importorskip("numpy", reason="numpy is not installed beside the gateway")
    header, *lines = map(json.loads, (stack.folder / "base.jsonl").read_text().splitlines())
    header["model"]["revision"] = "e" * 64
    # Problems 0 to 2 in the style "base".
    for number, value in enumerate(("x + 0", "abs(x) + 1", "x + 2")):
        lines[number]["text"] = f"    import numpy as np\n    return np.array([{value}], dtype=object)[0]\n"
    file = stack.folder / "numpy.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in (header, *lines)))
    with ExitStack() as up:
        inference = up.enter_context(running("inference", stack.folder / "numpy", ENGINE="replay", MODEL=str(file)))
        settings = stack.coordinator() | {"INFERENCE_ADDRESS": inference.address}
        coordinator = up.enter_context(running("coordinator", stack.folder / "with-numpy", **settings))
        async with clients(stack, coordinator.address) as connected:
            found = evaluations(await evaluate(connected, GREEDY))["humaneval+"]
            by_problem = {one.evaluation_result.problem_id: one for one in await results(connected, found.id)}
    verdicts = {number: by_problem[f"HumanEval/{number}"].evaluation_result.result.verdict for number in range(3)}
    assert verdicts == {0: sb.VERDICT_PASSED, 1: sb.VERDICT_FAILED_ASSERTION, 2: sb.VERDICT_PASSED}
    assert all("import numpy" in by_problem[f"HumanEval/{number}"].evaluation_result.solution for number in range(3))


async def test_a_limit_is_spread_over_the_benchmark(services: Clients) -> None:
    found = evaluations(await evaluate(services, ask("tuned", limit=4)))["humaneval+"]
    assert [score.problem_id for score in found.scores] == [f"HumanEval/{number}" for number in (0, 3, 6, 9)]
    whole = evaluations(await evaluate(services, TUNED))["humaneval+"]
    assert whole.id == found.id, "more problems are the same evaluation"
    assert whole.problems_done == PROBLEMS


async def _evaluate_until_killed(services: Clients, coordinator: Any) -> None:
    """Send SIGKILL to the coordinator once a problem is done."""
    async for message in services.stream(services.coordinator.Evaluate, SAMPLED, timeout=120, retry=NO_RETRY):
        if message.problems_done:
            coordinator.kill()


async def test_a_killed_evaluation_is_continued_without_doing_anything_twice(stack: Stack, running: Running) -> None:
    asked = checked(SAMPLED.settings)
    with running("coordinator", stack.folder / "killed", **stack.coordinator()) as coordinator:
        async with clients(stack, coordinator.address) as connected:
            with pytest.raises(grpc.aio.AioRpcError):
                await _evaluate_until_killed(connected, coordinator)
            page = dataset.ScanRequest(kind=pb.KIND_EVALUATION_RESULT, page_size=1000)
            there = (await connected.call(connected.dataset.Scan, page)).records
            seeds = {sample_seed(asked, f"HumanEval/{n}", attempt) for n in range(PROBLEMS) for attempt in range(4)}
            kept = {record.id: record for record in there if record.provenance.seed in seeds}
            assert 0 < len(kept) < 2 * PROBLEMS * 4
    with running("coordinator", stack.folder / "continued", **stack.coordinator()) as coordinator:
        async with clients(stack, coordinator.address) as connected:
            found = evaluations(await evaluate(connected, SAMPLED))
            for evaluation in found.values():
                records = await results(connected, evaluation.id)
                keys = {(record.parents[0], record.attempt) for record in records}
                assert len(records) == len(keys) == PROBLEMS * 4
                assert all(kept.get(record.id, record) == record for record in records)
            plus = found["humaneval+"]
            assert plus.pass_at_k == {1: 0.5, 4: 1.0}
            assert found["humaneval"].pass_at_k[1] == 0.75
            assert plus.intervals[4].low == plus.intervals[4].high == 1.0
            assert {score.passed for score in plus.scores} == {2}


async def test_a_caller_that_goes_away_stops_nothing_and_a_cancellation_does(stack: Stack, running: Running) -> None:
    request = ask(samples=4, temperature=0.5, seed=3, benchmarks=["humaneval"])
    data = stack.folder / "slow"
    data.mkdir()
    slow = [
        row(number) | {"canonical_solution": f"    # slow\n    return x + {number}\n"} for number in range(PROBLEMS)
    ]
    (data / "slow.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in slow))
    settings = stack.coordinator(data=data) | {"EXECUTIONS_IN_FLIGHT": "1", "SEEDS_IN_FLIGHT": "1"}
    with running("coordinator", stack.folder / "cancelled", **settings) as coordinator:
        async with clients(stack, coordinator.address) as connected:
            call = connected.coordinator.Evaluate(request, timeout=120)
            async for message in call:
                if message.problems_done:
                    break
            call.cancel()
            config = await _config_of(connected, data)
            watched = len(await results(connected, config))
            while len(await results(connected, config)) == watched:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.1)
            cancel = api.CancelEvaluationRequest(evaluation=message.job)
            await connected.call(connected.coordinator.CancelEvaluation, cancel)
            while (await _listed(connected, message.job)).state == pb.RUN_STATE_RUNNING:  # noqa: ASYNC110 - as before
                await asyncio.sleep(0.1)
            assert (await _listed(connected, message.job)).state == pb.RUN_STATE_CANCELLED
            before = len(await results(connected, config))
            await asyncio.sleep(2)
            assert len(await results(connected, config)) == before < PROBLEMS * 4


async def _listed(services: Clients, job: str) -> api.EvaluationStatus:
    listed = await services.call(services.coordinator.ListEvaluations, api.ListEvaluationsRequest())
    (status,) = [each for each in listed.evaluations if each.id == job]
    return status


async def _config_of(services: Clients, data: Path) -> str:
    """Return the evaluation of the benchmark in this directory."""
    wanted = benchmarks.load("humaneval", data).sha256
    request = dataset.ScanRequest(kind=pb.KIND_STAGE_CONFIG, collection="evaluations", page_size=1000)
    for record in (await services.call(services.dataset.Scan, request)).records:
        if json.loads(record.stage_config.settings_json)["benchmark_sha256"] == wanted:
            return record.id
    raise AssertionError("no such evaluation")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ask(benchmarks=["humaneval", "nope"]), "settings.benchmarks[1]"),
        (ask(benchmarks=[]), "settings.benchmarks"),
        (ask(samples=2), "settings.samples"),
        (ask(style="chatty"), "settings.prompt_style"),
        (ask(limit=-1), "settings.limit"),
        (ask(model=pb.ModelChoice(revision="f" * 64)), "settings.model.revision"),
    ],
)
async def test_a_wrong_field_is_named(services: Clients, request_: api.EvaluateRequest, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await evaluate(services, request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(caught.value) == [field]


async def test_what_cannot_go_on_says_why(services: Clients) -> None:
    for request, code, told in (
        (ask(seed=9, temperature=0.1), grpc.StatusCode.FAILED_PRECONDITION, "has this prompt only with other sampling"),
        (ask(model=pb.ModelChoice(model="other")), grpc.StatusCode.NOT_FOUND, "model other is not loaded"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await evaluate(services, request)
        assert caught.value.code() is code
        assert told in (caught.value.details() or "")


async def test_a_report_has_the_checkpoints_evaluations_and_comparisons_of_a_run(
    stack: Stack, running: Running, services: Clients
) -> None:
    base = evaluations(await evaluate(services, GREEDY))["humaneval+"]
    with running("coordinator", stack.folder / "other", **stack.coordinator("tuned")) as coordinator:
        async with clients(stack, coordinator.address) as connected:
            tuned = evaluations(await evaluate(connected, TUNED))["humaneval+"]
    run = await _finished_run(services, stack)
    report = await services.call(services.coordinator.GetReport, api.GetReportRequest(run=run))
    assert [record.checkpoint.revision for record in report.checkpoints] == [stack.revisions["tuned"]]
    by_id = {evaluation.id: evaluation for evaluation in report.evaluations}
    for evaluation in (base, tuned):
        assert by_id[evaluation.id] == evaluation
    (found,) = [each for each in report.comparisons if each.benchmark == "humaneval+" and each.base == base.id]
    assert (found.tuned, found.problems, found.difference) == (tuned.id, PROBLEMS, 0.5)
    assert (found.base_better, found.tuned_better, found.test) == (0, 6, "exact McNemar")
    assert found.p_value == 2 / 2**6


async def _finished_run(services: Clients, stack: Stack) -> str:
    """Store a run with a published version, and checkpoints of this and another version; return the run's id."""
    model = pb.ModelChoice(model="base", revision=stack.revisions["base"])
    config, run = run_records(with_defaults(pb.Run(seeds=pb.SeedSelection(collection="seeds"), model=model)))
    await _append(services, run.id, config)
    await _append(services, run.id, run)
    event = pb.RunEvent(state=pb.RUN_STATE_SUCCEEDED, version="v-1")
    await _append(services, run.id, pb.Record(kind=pb.KIND_RUN_EVENT, parents=[run.id], run_event=event))
    for version, made in (("v-1", "tuned"), ("v-2", "base")):
        body = pb.Checkpoint(revision=stack.revisions[made], dataset_version=version)
        await _append(services, "", pb.Record(kind=pb.KIND_CHECKPOINT, checkpoint=body))
    return run.id


async def _append(services: Clients, collection: str, record: pb.Record) -> str:
    request = dataset.AppendRequest(records=[record], collection=collection)
    return (await services.call(services.dataset.Append, request)).results[0].id
