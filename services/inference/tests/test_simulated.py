"""Engine simulated: its texts can be parsed, follow the recorded statistics, and depend only on their sample."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import ConfigurationError, InvalidArgument, ResourceExhausted, Unavailable
from codealign.inference.engine_opener import configured_source, open_engine
from codealign.inference.engines.base import (
    ChatMessage,
    Completion,
    Engine,
    FinishReason,
    GenerationRequest,
    Sample,
    Sampling,
)
from codealign.inference.engines.simulated import profile, program
from codealign.inference.engines.simulated.draws import Draws
from codealign.inference.engines.simulated.engine import SimulatedEngine
from codealign.inference.settings import InferenceSettings

Connect = Callable[[Engine], AbstractAsyncContextManager[Any]]

NANO = profile.load("nano")
CONCEPTS = (
    "# From code\n\n## Example 1\n\n<code>\ndef f(): ...\n</code>\n<concepts>\nloops, lists\n</concepts>\n\n"
    "## Example 2\n\n<code>\ndef g(x): return {n}\n</code>\n<concepts>\n"
)
TASK = (
    "# To tasks\n\n## Example 1\n\n<property>\na\n</property>\n<task>\nWrite a function that adds two numbers.\n"
    "</task>\n\n## Example 2\n\n<property>\nconcepts: {n}\n</property>\n<task>\n"
)
ANSWER = (
    "# Answers\n\n## Example 1\n\n<task>\nWrite f.\n</task>\n<answer>\n```python\nx\n```\n</answer>\n<tests>\n"
    "```python\nassert x\n```\n</tests>\n\n## Example 2\n\n<task>\nWrite `work(values)` {n}.\n</task>\n<answer>\n"
)
PAIR = (
    "# Pairs\n\n## Example 1\n\n<code>\nx = 1\n</code>\n<task>\nWrite f.\n</task>\n<answer>\nLike this.\n\n"
    "```python\nx\n```\n</answer>\n\n## Example 2\n\n<code>\ny = {n}\n</code>\n<task>\n"
)
STOPS = {PAIR: ("\n```\n</answer>",), CONCEPTS: ("\n</concepts>",), TASK: ("\n</task>",), ANSWER: ("\n```\n</tests>",)}
MANY = 1500


def engine(**options: Any) -> SimulatedEngine:
    return SimulatedEngine(NANO, **{"speed": 0, "slots": 64, "max_waiting": 10_000, **options})


def request(template: str, number: int = 0, seeds: range = range(1), max_tokens: int = 320) -> GenerationRequest:
    sampling = Sampling(temperature=0.7, max_tokens=max_tokens, stop=STOPS.get(template, ()))
    samples = tuple(Sample(at, seed) for at, seed in enumerate(seeds))
    return GenerationRequest(template.replace("{n}", str(number)), samples, sampling)


async def completions(of: Engine, wanted: GenerationRequest) -> list[Completion]:
    found = [completion async for completion in of.generate(wanted)]
    return sorted(found, key=lambda completion: completion.attempt)


async def one_each(template: str, count: int = MANY, **options: Any) -> list[Completion]:
    """Return one completion per prompt."""
    own = engine(**options)
    return [(await completions(own, request(template, number)))[0] for number in range(count)]


def outcome(text: str) -> str:
    """Return an answer's outcome. The programs are the engine's own, so they may be executed here."""
    answer, ended, rest = text.partition("\n</answer>\n<tests>\n")
    if not ended:
        return "no-tests-section"
    code, tests = (re.findall(r"```python\n(.*?)(?:\n```|\Z)", part, re.DOTALL) for part in (answer, rest))
    assert len(code) == len(tests) == 1, text
    try:
        ast.parse(code[0])
    except SyntaxError:
        return "syntax-error"
    names: dict[str, Any] = {}
    try:
        exec(code[0] + "\n" + tests[0], names)
    except AssertionError:
        return "failed-assertion"
    except IndexError:
        return "raised"
    return "passed"


async def test_each_section_is_written_as_its_examples_are() -> None:
    concepts, task, answer = [await one_each(template, 40) for template in (CONCEPTS, TASK, ANSWER)]
    for completion in concepts:
        assert 2 <= len(completion.text.split(", ")) <= 8
        assert (completion.finish_reason, completion.stop_string) == (FinishReason.STOP_STRING, "\n</concepts>")
    assert all(re.match(r"Write `\w+\(\w+\)`", each.text) and "\n" not in each.text for each in task)
    whole = [each for each in answer if each.finish_reason is FinishReason.STOP_STRING]
    assert len(whole) > 30
    assert all("def work(" in each.text for each in whole), "the function bears the name that the task gives it"


async def test_a_task_and_its_answer_are_written_in_one_completion() -> None:
    found = [each.text for each in await one_each(PAIR, 40) if each.finish_reason is FinishReason.STOP_STRING]
    assert len(found) > 30
    for text in found:
        task, closed, rest = text.partition("\n</task>\n<answer>\n")
        assert closed
        [name] = re.findall(r"Write `(\w+)\(\w+\)`", task)
        assert f"```python\ndef {name}(" in rest
        assert "assert" not in rest


async def test_answers_pass_and_fail_as_often_as_was_recorded() -> None:
    found = await one_each(ANSWER)
    cut = sum(each.finish_reason is FinishReason.LENGTH for each in found)
    counted = Counter(outcome(each.text) for each in found if each.finish_reason is not FinishReason.LENGTH)
    expected = sum(Draws("x", n).quantile(NANO.pass_rates) for n in range(MANY)) / MANY
    assert abs(counted["passed"] / MANY - expected) < 0.05
    failed = MANY - counted["passed"]
    for name in ("failed-assertion", "syntax-error", "raised", "no-tests-section"):
        assert abs(counted[name] / failed - NANO.failures[name]) < 0.03, (name, counted)
    assert 0 < cut / failed < NANO.failures["cut-off"] + 0.05


async def test_a_hard_prompt_stays_hard() -> None:
    own = engine()
    passed = []
    for number in range(60):
        several = await completions(own, request(ANSWER, number, range(12)))
        texts = [each.text for each in several if each.finish_reason is not FinishReason.LENGTH]
        passed.append(sum(outcome(text) == "passed" for text in texts))
    assert passed.count(0) > 15
    assert max(passed) == 12


async def test_lengths_are_those_that_were_recorded() -> None:
    for template, kind in ((CONCEPTS, "list"), (TASK, "prose"), (ANSWER, "answer")):
        tokens = sorted(each.generated_tokens for each in await one_each(template, 400))
        recorded = NANO.kinds[kind].tokens
        assert abs(tokens[200] / recorded[len(recorded) // 2] - 1) < 0.35, (kind, tokens[200])


async def test_tasks_bear_an_earlier_ones_name_as_often_as_was_recorded() -> None:
    found = await one_each(TASK)
    names = [re.findall(r"`(\w+)\(", each.text)[0] for each in found]
    share = 1 - len(set(names)) / len(names)
    assert NANO.repeats / 4 < share < NANO.repeats * 1.5
    texts = {each.text for each in found}
    assert len(texts) == len(found)


async def test_a_sample_is_the_same_in_every_batch_order_and_process() -> None:
    alone = [(await completions(engine(), request(ANSWER, 3, range(seed, seed + 1))))[0] for seed in range(8)]
    together = engine(slots=2, speed=1e6)
    wanted = request(ANSWER, 3, range(8))
    batch, *others = await asyncio.gather(*(completions(together, one) for one in (wanted, request(TASK), wanted)))
    assert [each.text for each in batch] == [each.text for each in alone] == [each.text for each in others[1]]
    assert len({each.text for each in batch}) == 8
    other_sampling = GenerationRequest(wanted.prompt, wanted.samples, Sampling(0.8, max_tokens=320))
    assert [each.text for each in await completions(together, other_sampling)] != [each.text for each in batch]
    assert together.model.batch_invariant


def test_draws_are_pinned() -> None:
    # Stored completions are found by revision: the same revision must always give the same text.
    draws = Draws("a", 1, "größer")
    assert [draws.below(1000) for _ in range(5)] == [339, 885, 544, 232, 118]


async def test_another_seed_is_another_model() -> None:
    one, other = engine(), engine(seed=1)
    assert one.model.revision == engine().model.revision != other.model.revision
    assert (await completions(one, request(TASK)))[0].text != (await completions(other, request(TASK)))[0].text


async def test_max_tokens_cuts_any_text_and_says_so() -> None:
    for template in (CONCEPTS, TASK, ANSWER):
        (completion,) = await completions(engine(), request(template, max_tokens=3))
        assert (completion.finish_reason, completion.generated_tokens) == (FinishReason.LENGTH, 3)


async def test_a_prompt_without_a_section_is_answered_with_code() -> None:
    conversation = (ChatMessage("user", "Write a function."), ChatMessage("assistant", "Sure.\n"))
    for prompt in ("def f(x):\n", conversation):
        wanted = GenerationRequest(prompt, (Sample(0, 1),), Sampling(max_tokens=300))
        (completion,) = await completions(engine(), wanted)
        assert "```python\ndef " in completion.text
        assert "</" not in completion.text


async def test_a_prompt_that_does_not_fit_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidArgument, match=r"prompt: has .* tokens, but the model's context has 100 "):
        await completions(engine(max_context=100), request(ANSWER + "x" * 400))


async def test_time_passes_as_it_was_recorded_over_the_speed() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    fast = await completions(engine(speed=50.0, sleep=sleep), request(TASK))
    real = await completions(engine(speed=1.0, sleep=sleep), request(TASK))
    assert slept[0] == pytest.approx(slept[1] / 50)
    least, most = NANO.kinds["prose"].seconds_per_token[0], NANO.kinds["prose"].seconds_per_token[-1]
    assert least <= slept[1] / real[0].generated_tokens <= most
    assert fast[0].text == real[0].text
    await completions(engine(speed=0, sleep=sleep), request(TASK))
    assert len(slept) == 2


async def test_slots_bound_what_runs_and_a_full_queue_is_refused() -> None:
    go = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await go.wait()

    own = engine(slots=2, max_waiting=3, speed=1.0, sleep=sleep)
    first = asyncio.ensure_future(completions(own, request(TASK, 0, range(5))))
    while not own.load().running:  # noqa: ASYNC110 (the other task's state)
        await asyncio.sleep(0)
    load = own.load()
    assert (load.running, load.waiting, load.slots) == (2, 3, 2)
    with pytest.raises(ResourceExhausted) as caught:
        await completions(own, request(TASK, 1))
    assert caught.value.retry_after >= 1
    go.set()
    assert len(await first) == 5
    assert own.load().generated_tokens > 0


async def test_a_call_that_is_given_up_frees_its_slots() -> None:
    own = engine(slots=1, speed=1e-3)
    async with aclosing(own.generate(request(TASK, 0, range(3)))) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert (own.load().running, own.load().waiting) == (0, 0)


async def test_closing_ends_what_is_in_flight() -> None:
    own = engine(speed=1e-3)
    call = asyncio.ensure_future(completions(own, request(TASK)))
    await asyncio.sleep(0)
    await own.close()
    with pytest.raises(Unavailable):
        await call


async def test_over_grpc_a_refusal_tells_when_to_ask_again(connect: Connect) -> None:
    wire = pb.GenerateRequest(
        prompt=TASK.replace("{n}", "1"),
        samples=[pb.Sample(attempt=at, seed=at) for at in range(4)],
        sampling=pb.SamplingParameters(max_tokens=96, stop=STOPS[TASK]),
    )
    async with connect(engine(slots=1, max_waiting=3, speed=1e-3)) as stub:
        model = (await stub.GetModel(pb.GetModelRequest())).model
        assert (model.engine, model.name, model.batch_invariant) == ("simulated", "nano", True)
        call = stub.Generate(wire)
        async with asyncio.timeout(10):
            while (await stub.GetLoad(pb.GetLoadRequest())).waiting < 3:  # noqa: ASYNC110 (another process's state)
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(wire).read()
        call.cancel()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)


def test_programs_do_what_they_are_said_to_do() -> None:
    seen: Counter[str] = Counter()
    for number in range(300):
        made = program.draw(Draws(number), "work")
        for wanted in ("passed", "failed-assertion", "raised", "exited-early", "no-assertion"):
            names: dict[str, Any] = {}
            text = "\n".join([made.code("Doc.", wanted), *made.tests(Draws(number, "tests"), 3, wanted)])
            assert ("assert" in text) == (wanted != "no-assertion")
            try:
                exec(text, names)
                seen[f"{wanted} ends"] += 1
            except (AssertionError, IndexError, SystemExit) as error:
                seen[f"{wanted} {type(error).__name__}"] += 1
    assert seen == {
        "passed ends": 300,
        "failed-assertion AssertionError": 300,
        "raised IndexError": 300,
        "exited-early SystemExit": 300,
        "no-assertion ends": 300,
    }
    assert "while" in program.draw(Draws(1), "f").code("", "timed-out")


def test_a_server_opens_it_by_name_and_nano_without_one() -> None:
    settings = InferenceSettings(engine="simulated", slots=3, simulated_seed=7)
    assert configured_source(settings) == "nano"
    opened = open_engine(settings, "qwen2.5-coder-1.5b", "mine")
    assert (opened.model.name, opened.model.source, opened.load().slots) == ("mine", "qwen2.5-coder-1.5b", 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failures": {"bored": 1}}, "failures: 'bored' must be one of failed-assertion"),
        ({"failures": {}}, "failures: all shares are 0"),
        ({"pass_rates": [0.1, 1.5]}, "pass_rates: must be at most 1"),
        ({"repeats": -1}, "repeats: must be at least 0"),
        ({"pass_rates": [0.5, 0.1]}, "pass_rates: quantiles must be numbers in ascending order"),
        ({"kinds": {}}, "missing field 'list'"),
        ({"codealign_profile": 2}, "codealign_profile must be 1"),
    ],
)
def test_a_damaged_profile_is_told_by_its_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**json.loads(profile.locate("nano").read_text()), **change}))
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        profile.load(str(path))


def test_a_profile_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no profile 'gpt': give one of nano, qwen2\.5-coder-1\.5b, or a file"
    ):
        profile.load("gpt")
