"""An odd item never ends an evaluation, and an infrastructure fault never becomes a result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import Message

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import CodeAlignError, FailedPrecondition, Internal, InvalidArgument
from codealign.coordinator.evaluation import benchmarks, hub, programs
from codealign.coordinator.evaluation.judging import Judge, ReferenceFailed
from codealign.coordinator.evaluation.problems import Problem
from fakes.following import PROBLEMS, Coordinator, World, settings
from fakes.virtual_time import in_virtual_time

JOB, RESULT = pb.KIND_EVALUATION_JOB, pb.KIND_EVALUATION_RESULT
SUCCEEDED, FAILED = pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED
ODD = "def add_3("


def failing(world: World, error: CodeAlignError, about: str = ODD) -> None:
    """Make inference fail every prompt that contains a text."""

    def before(method: str, request: Message) -> None:
        if isinstance(request, inf.GenerateRequest) and about in str(request):
            raise error

    world.inference.control.before = before


def detail(world: World, problem: str = "HumanEval/3") -> str:
    """Return the detail of a problem's only result, which must not have passed."""
    (found,) = [
        each.evaluation_result for each in world.dataset.of_kind(RESULT) if each.evaluation_result.problem_id == problem
    ]
    assert not found.passed
    assert found.result.verdict == sb.VERDICT_REFUSED
    return found.result.detail


async def result(coordinator: Coordinator, given: pb.EvaluationSettings | None = None) -> api.Evaluation:
    return (await coordinator.evaluate(given or settings()))[-1].evaluation


@in_virtual_time
async def test_a_prompt_on_which_inference_fails_for_ever_is_one_failed_sample(tmp_path: Path) -> None:
    world = World(tmp_path)
    failing(world, Internal("the engine broke"))
    found = await result(Coordinator(world, "a"))
    assert (found.problems_done, found.undecided, found.verdicts["REFUSED"]) == (PROBLEMS, 0, 1)
    assert detail(world) == "internal-error: inference: the engine broke"
    assert (await world.standing(JOB)).state == SUCCEEDED
    assert len([each for each in world.inference.requests if ODD in each.prompt]) <= 10


@in_virtual_time
async def test_a_prompt_that_is_too_long_in_either_style_is_one_failed_sample(tmp_path: Path) -> None:
    for style, field in (("base", "prompt"), ("tuned", "chat")):
        world = World(tmp_path)
        world.inference.add_model("tuned", "rev-tuned", chat_template="{{ messages }}")
        failing(world, InvalidArgument(field, "is too long"))
        found = await result(Coordinator(world, "a"), settings("tuned", prompt_style=style))
        assert found.verdicts == {"PASSED": PROBLEMS - 1, "REFUSED": 1}
        assert detail(world) == f"inference rejected the prompt: {field}: is too long"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Internal("the engine broke"), "inference: the engine broke"),
        (InvalidArgument("prompt", "is not understood"), "prompt: is not understood"),
        (InvalidArgument("sampling.max_tokens", "is too large"), "sampling.max_tokens: is too large"),
    ],
)
def test_where_inference_answers_nothing_no_sample_is_recorded(
    tmp_path: Path, error: CodeAlignError, says: str
) -> None:
    @in_virtual_time
    async def test() -> None:
        world = World(tmp_path)
        failing(world, error, "def add_")
        with pytest.raises(FailedPrecondition, match=says):
            await result(Coordinator(world, "a"))
        assert (await world.standing(JOB)).state == FAILED
        assert not world.results()

    test()


@in_virtual_time
async def test_an_engine_that_breaks_in_the_middle_makes_no_failed_samples(tmp_path: Path) -> None:
    world = World(tmp_path)
    coordinator = Coordinator(world, "a")
    await result(coordinator, settings(limit=2))
    failing(world, Internal("the engine broke"), "def add_")
    with pytest.raises(FailedPrecondition, match="the engine broke"):
        await result(coordinator)
    assert len(world.results()) == 2
    world.inference.control.before = None
    assert (await result(coordinator)).problems_done == PROBLEMS


@in_virtual_time
async def test_an_odd_prompt_that_is_left_alone_after_a_takeover_is_a_failed_sample_still(tmp_path: Path) -> None:
    world = World(tmp_path)
    undisturbed = World(tmp_path)
    for each in (world, undisturbed):
        failing(each, Internal("the engine broke"))
    expected = await result(Coordinator(undisturbed, "a"))
    killed = Coordinator(world, "a")
    watching = asyncio.create_task(killed.evaluate(settings()))

    async def one_left() -> bool:
        return len(world.results()) == PROBLEMS - 1

    await world.until(one_left)
    killed.kill()
    watching.cancel()
    assert await result(Coordinator(world, "b")) == expected


@in_virtual_time
async def test_text_that_cannot_be_read_is_one_failed_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = programs.clean

    def cleaning(text: str, entry_point: str) -> str:
        if ODD in text:
            raise RecursionError("too deep \ud800")
        return clean(text, entry_point)

    monkeypatch.setattr(programs, "clean", cleaning)
    world = World(tmp_path)
    found = await result(Coordinator(world, "a"))
    assert (found.problems_done, found.verdicts["REFUSED"]) == (PROBLEMS, 1)
    assert detail(world).startswith("internal-error: RecursionError: too deep")


@in_virtual_time
async def test_a_result_that_the_store_does_not_take_is_kept_without_its_texts(tmp_path: Path) -> None:
    world = World(tmp_path)

    def before(method: str, request: Message) -> None:
        for record in getattr(request, "records", ()):
            if method == "append" and "add_2" in record.evaluation_result.solution:
                raise InvalidArgument("records[0]", "is too large")

    world.dataset.control.before = before
    found = await result(Coordinator(world, "a"))
    assert (found.problems_done, found.pass_at_k[1]) == (PROBLEMS, 0.5)
    kept = {each.evaluation_result.problem_id: each.evaluation_result for each in world.dataset.of_kind(RESULT)}
    assert kept["HumanEval/2"].passed
    assert not kept["HumanEval/2"].completion
    assert "is too large" in kept["HumanEval/2"].result.detail


@in_virtual_time
async def test_a_problem_whose_own_solution_fails_is_undecided_and_the_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge.judge

    def breaking(is_broken: Callable[[Problem], bool]) -> None:
        async def judging(self: Judge, problem: Problem, solution: str) -> sb.Result | None:
            if is_broken(problem):
                raise ReferenceFailed(f"the reference solution of {problem.problem_id} failed in the sandbox")
            return await judge(self, problem, solution)

        monkeypatch.setattr(Judge, "judge", judging)

    world = World(tmp_path)
    breaking(lambda problem: problem.problem_id == "HumanEval/3")
    found = await result(Coordinator(world, "a"))
    assert (found.problems_done, found.undecided) == (PROBLEMS - 1, 1)
    assert "reference solution of HumanEval/3 failed in the sandbox" in (await world.standing(JOB)).message
    breaking(lambda _: True)
    world = World(tmp_path)
    with pytest.raises(FailedPrecondition, match="reference solution of"):
        await result(Coordinator(world, "a"))


@in_virtual_time
async def test_a_program_on_which_the_sandbox_fails_for_ever_is_undecided(tmp_path: Path) -> None:
    world = World(tmp_path)

    def before(method: str, request: Message) -> None:
        if isinstance(request, sb.ExecuteRequest) and ODD in request.program.code:
            raise Internal("the gateway broke")

    world.sandbox.control.before = before
    found = await result(Coordinator(world, "a"))
    assert (found.problems_done, found.undecided) == (PROBLEMS - 1, 1)
    assert "undecided" in (await world.standing(JOB)).message


@in_virtual_time
async def test_a_hub_that_does_not_answer_after_a_takeover_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, load, away = World(tmp_path), benchmarks.load, 3

    def loading(name: str, data: Path | None) -> object:
        nonlocal away
        if world.dataset.of_kind(JOB) and away:
            away -= 1
            raise benchmarks.NotReached("humaneval: the hub is unreachable")
        return load(name, data)

    monkeypatch.setattr(benchmarks, "load", loading)
    assert (await result(Coordinator(world, "a"))).problems_done == PROBLEMS
    assert not away


def test_errors_of_the_network_pass_and_those_of_the_repository_do_not() -> None:
    class Answer:
        def __init__(self, status_code: int) -> None:
            self.status_code = status_code

    class HubError(OSError):
        def __init__(self, status: int) -> None:
            super().__init__(f"status {status}")
            self.response = Answer(status)

    assert all(map(hub._may_pass, (ConnectionError(), TimeoutError(), HubError(503), HubError(429))))
    assert not any(map(hub._may_pass, (HubError(404), HubError(403), ValueError("no Parquet file"))))


@in_virtual_time
async def test_other_runners_judge_again_and_the_same_ones_do_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    coordinator = Coordinator(world, "a")
    first = await result(coordinator)
    runner = world.sandbox.runner
    changes: tuple[Callable[[], None], ...] = (
        lambda: setattr(runner, "image_digest", "sha256:" + "2" * 64),
        lambda: setattr(runner, "python_version", "3.12.1"),
        lambda: setattr(runner.profile_limits[0].defaults, "processes", 7),
    )
    for number, change in enumerate(changes, 1):
        change()
        again = await result(coordinator)
        assert again.id != first.id
        assert again.scores == first.scores
        assert len(world.results()) == (number + 1) * PROBLEMS
    executed = world.sandbox.control.calls["execute"]
    (unchanged,) = await Coordinator(world, "b").evaluate(settings())
    assert unchanged.evaluation == again
    assert world.sandbox.control.calls["execute"] == executed


@in_virtual_time
async def test_runners_that_change_in_the_middle_leave_no_mixture_of_results(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.inference.seconds = 1.0
    coordinator = Coordinator(world, "a", seeds_in_flight=1)
    watching = asyncio.create_task(result(coordinator))

    async def begun() -> bool:
        return bool(world.results())

    await world.until(begun)
    world.sandbox.runner.image_digest = "sha256:" + "2" * 64
    found = await watching
    assert (found.problems_done, found.undecided) == (PROBLEMS, 0)
    images = {
        each.evaluation_result.result.image_digest
        for each in world.dataset.of_kind(RESULT)
        if each.stage_config_id == found.id
    }
    assert images == {world.sandbox.runner.image_digest}


@in_virtual_time
async def test_limits_that_the_runners_do_not_allow_are_said_before_anything_is_recorded(tmp_path: Path) -> None:
    world = World(tmp_path)
    maxima = world.sandbox.runner.profile_limits[0].maxima
    maxima.wall_seconds, maxima.memory_bytes = 10, 2**20
    with pytest.raises(FailedPrecondition, match=r"wall_seconds up to 10, must be at least 60; .* memory_bytes up to"):
        await result(Coordinator(world, "a"))
    assert not world.dataset.records


@in_virtual_time
async def test_a_model_that_does_not_fit_is_named_with_every_other_wrong_field(tmp_path: Path) -> None:
    world = World(tmp_path)
    given = settings("base", "rev-x", prompt_style="tuned", limit=-1, benchmarks=["humaneval", "x"])
    with pytest.raises(InvalidArgument) as caught:
        await result(Coordinator(world, "a"), given)
    assert {field for field, _ in caught.value.violations} == {
        "settings.limit",
        "settings.benchmarks[1]",
        "settings.model.revision",
        "settings.prompt_style",
    }


@in_virtual_time
async def test_a_list_of_many_evaluations_costs_as_many_reads_as_one_of_few(tmp_path: Path) -> None:
    world = World(tmp_path)
    coordinator = Coordinator(world, "a")
    control, costs = world.dataset.control, []
    for seeds in (range(2), range(2, 20)):
        for seed in seeds:
            await result(coordinator, settings(temperature=0.5, seed=seed, limit=1))
        await coordinator.drain()
        before = control.calls.copy()
        listed = await coordinator.evaluations.list()
        assert len(listed) == seeds.stop
        costs.append(control.calls - before)
        coordinator = Coordinator(world, "a")
    assert costs[0] == costs[1] == {"scan": 3}
