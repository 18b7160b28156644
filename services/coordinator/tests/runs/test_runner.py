"""One runner for pipelines of every shape: stops, failures and odd items do not change the rows."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from codealign.coordinator.ground import faults
from codealign.coordinator.ground.faults import RunFailed, RunStopped
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.runs.breaker import UNDECIDED, BreakerOpened
from codealign.coordinator.runs.progress import stored_progress
from codealign.coordinator.runs.runner import Outcome
from fakes import toys
from fakes.toys import SEEDS, Bench
from fakes.virtual_time import in_virtual_time

SHAPES = sorted(toys.shapes())


def bench(name: str, count: int = 8, *extra: str, strategy: str = "first-pass", **settings: object) -> Bench:
    made = Bench(toys.run_record(name, strategy, **settings))
    made.fakes.dataset.put(*toys.seeds(count, *extra), collection=SEEDS)
    return made


def version(found: Bench, outcome: Outcome) -> list[bytes]:
    """Return the bytes of the published rows."""
    rows = found.fakes.dataset.versions[outcome.version]
    return [row.id.encode() + row.example.SerializeToString(deterministic=True) for row in rows]


@pytest.mark.parametrize("name", SHAPES)
async def test_a_pipeline_of_any_shape_ends_with_rows_that_know_where_they_came_from(name: str) -> None:
    made = bench(name)
    outcome = await made.work()
    assert outcome.rows == len(made.examples()) > 2
    pipeline = toys.shapes()[name]
    line = ["seeds", *(stage.name for stage in pipeline.writing)]
    for row in made.examples():
        assert [step.stage for step in row.example.lineage] == line
        for parent, child in zip(row.example.lineage, row.example.lineage[1:], strict=False):
            record = made.fakes.dataset.records[child.record_id]
            assert record.parents[0] == parent.record_id
            assert made.fakes.dataset.records[record.parents[1]].kind == pb.KIND_COMPLETION
        assert bool(row.example.verdict_id) == (pipeline.execution is not None)
    [published] = made.fakes.dataset.published
    assert published.not_executed == (pipeline.execution is None)
    assert all(record.id in made.fakes.dataset.collections[made.run.id] for record in made.examples())


@pytest.mark.parametrize("name", SHAPES)
async def test_a_run_that_stops_at_any_append_publishes_the_same_bytes(name: str) -> None:
    whole = bench(name, 3)
    expected = version(whole, await whole.work())
    appends = whole.fakes.dataset.control.calls["append"]
    for stop_after in range(appends):
        made = bench(name, 3)
        seen = 0

        def stop(method: str, request: Message, limit: int = stop_after) -> None:
            nonlocal seen
            seen += method == "append"
            if seen > limit:
                raise InvalidArgument("records", "stop here") if method == "append" else asyncio.CancelledError

        made.fakes.dataset.control.before = stop
        with pytest.raises((asyncio.CancelledError, Exception)):
            await made.work()
        made.fakes.dataset.control.before = None
        assert version(made, await made.work()) == expected, f"stopped after {stop_after} appends"


@pytest.mark.parametrize("name", SHAPES)
async def test_a_pause_at_any_moment_finishes_what_is_in_flight_and_the_rest_later(name: str) -> None:
    whole = bench(name, 4)
    expected = version(whole, await whole.work())
    for moment in range(0, 25, 3):
        made, asked = bench(name, 4), 0

        def gate(limit: int = moment) -> None:
            nonlocal asked
            asked += 1
            if asked > limit:
                raise RunStopped("paused")

        made.gate = gate
        try:
            await made.work()
        except RunStopped:
            assert made.fakes.inference.running == 0
            kept = made.fakes.dataset.of_kind(pb.KIND_COMPLETION)
            assert len(kept) == made.fakes.inference.generated, "whatever was written is kept"
        made.gate = lambda: None
        generated = made.fakes.inference.generated
        assert version(made, await made.work()) == expected
        assert made.fakes.inference.generated == whole.fakes.inference.generated >= generated, "nothing is asked twice"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("strategy", ["first-pass", "random-pass", "everything"])
async def test_neither_concurrency_nor_the_order_of_completion_changes_the_bytes(name: str, strategy: str) -> None:
    found = []
    for seed, in_flight in ((0, 0), (1, 1), (2, 3)):
        made, chance = bench(name, 12, strategy=strategy), random.Random(seed)
        made.settings.seeds_in_flight = made.settings.generations_in_flight = in_flight

        async def later(
            request: inf.GenerateRequest, sample: inf.Sample, chance: random.Random = chance
        ) -> inf.Completion:
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            return toys.writes(request, sample)

        made.fakes.inference.writes = later
        found.append(version(made, await made.work()))
    assert found[0] == found[1] == found[2]


async def test_a_stage_is_written_by_the_model_that_its_settings_name() -> None:
    stage = pb.StageSettings(stage="responses", model=pb.ModelChoice(model="teacher", revision="rev-teacher"))
    made = bench("one-line", stages=[stage])
    made.fakes.inference.add_model("teacher", "rev-teacher")
    await made.work()
    by_model: dict[str, set[str]] = {}
    for request in made.fakes.inference.requests:
        by_model.setdefault(request.model, set()).add(request.prompt.partition(":")[0])
    assert by_model == {"model": {"instructions"}, "teacher": {"responses"}}
    assert {row.example.model_revision for row in made.examples()} == {"rev-teacher"}
    assert made.fakes.dataset.published[0].facts["responses_model_revision"] == "rev-teacher"


async def test_a_completion_that_holds_several_records_gives_each_a_group_of_its_own() -> None:
    made = bench("fan-out", 6)
    await made.work()
    instructions = made.fakes.dataset.of_kind(pb.KIND_INSTRUCTION, made.run.id)
    read = Counter(record.parents[1] for record in instructions)
    assert max(read.values()) == 3
    assert {record.key for record in instructions} == {"", "1", "2"}
    rows = Counter(row.example.lineage[1].record_id for row in made.examples())
    assert set(rows.values()) == {1}
    assert len(rows) > 6, "more rows than seeds"
    tokens = sum(record.provenance.generated_tokens for record in instructions)
    completions = [made.fakes.dataset.records[each] for each in read]
    assert tokens == sum(record.provenance.generated_tokens for record in completions), "each token counts once"


@pytest.mark.parametrize("name", SHAPES)
async def test_a_raised_version_reads_again_and_asks_the_engine_nothing(
    name: str, use_pipelines: Callable[[dict[str, Pipeline]], None]
) -> None:
    first = bench(name)
    await first.work()
    generated = first.fakes.inference.generated
    use_pipelines(toys.shapes(version=2))
    again = Bench(toys.run_record(name), first.fakes)
    assert again.run.id != first.run.id
    await again.work()
    assert first.fakes.inference.generated == generated
    assert again.rows() == first.rows()
    old = {row.example.lineage[-1].record_id for row in first.examples()}
    new = {row.example.lineage[-1].record_id for row in again.examples()}
    assert old.isdisjoint(new), "read by another version, these are other records"


async def test_another_run_with_the_same_draws_takes_everything_over() -> None:
    first = bench("fan-out")
    await first.work()
    asked = len(first.fakes.inference.requests), len(first.fakes.sandbox.requests)
    other = Bench(toys.run_record("fan-out", "random-pass"), first.fakes)
    await other.work()
    drawn = {record.id for record in first.fakes.dataset.of_kind(pb.KIND_COMPLETION, first.run.id)}
    assert drawn < {record.id for record in first.fakes.dataset.of_kind(pb.KIND_COMPLETION, other.run.id)}
    assert len(first.fakes.inference.requests) > asked[0], "the attempts that the first run did not draw"
    assert len(first.fakes.dataset.of_kind(pb.KIND_COMPLETION)) == first.fakes.inference.generated


async def test_two_runs_at_once_that_share_their_draws_each_give_the_rows_that_they_give_alone() -> None:
    alone = {}
    for strategy in ("first-pass", "random-pass"):
        made = bench("fan-out", strategy=strategy)
        alone[strategy] = version(made, await made.work())
    first = bench("fan-out", strategy="first-pass")
    other = Bench(toys.run_record("fan-out", "random-pass"), first.fakes)
    outcomes = await asyncio.gather(first.work(), other.work())
    assert version(first, outcomes[0]) == alone["first-pass"]
    assert version(other, outcomes[1]) == alone["random-pass"]


async def test_a_run_of_another_version_of_its_stages_is_not_mixed_with_it(
    use_pipelines: Callable[[dict[str, Pipeline]], None],
) -> None:
    made = bench("one-line")
    use_pipelines(toys.shapes(version=2))
    with pytest.raises(RunFailed, match=r"version \d+ of stage .instructions.*`codealign rejudge`"):
        await made.work()


ODD = {
    "a parser that recurses": ("boom", "instructions", "RecursionError"),
    "a rule that raises": ("faulty-rule", "instructions", "ValueError"),
    "a program that cannot be made": ("unprogrammable", "execution", "ValueError"),
    "a comparison that recurses": ("uncomparable", "selection", "RecursionError"),
}


@pytest.mark.parametrize("what", ODD)
async def test_an_item_that_raises_is_rejected_with_its_evidence_and_ends_nothing(what: str) -> None:
    text, stage, error = ODD[what]
    made = bench("one-line", 12)
    victim: list[str] = []

    def odd(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        asked = request.prompt.partition(":")[0]
        if asked == ("instructions" if stage == "instructions" else "responses"):
            victim[:] = victim or [request.prompt]
            if request.prompt == victim[0]:
                return toys.said(text)
        return toys.said(toys.digest(sample.seed))

    made.fakes.inference.writes = odd
    made.fakes.sandbox.judges = lambda program: sb.Result(verdict=sb.VERDICT_PASSED)
    outcome = await made.work()
    assert outcome.rows == 11
    assert "internal error" in outcome.message
    rejections = made.rejections()
    assert {rejection.reason for rejection in rejections} == {"internal-error"}
    assert all(rejection.detail.startswith(error) for rejection in rejections)
    assert all("toys.py" in rejection.evidence for rejection in rejections)
    assert made.progress[stage].reasons["internal-error"] == len(rejections)
    stored = stored_progress(made.run.run, await made.counts())
    assert stored[stage].reasons == made.progress[stage].reasons
    assert (await made.work()).version == outcome.version, "and the same when it is carried out again"


async def test_a_seed_that_raises_is_rejected_and_the_others_go_on() -> None:
    made = bench("one-line", 5, "def explode(x, x): return x")
    await made.work()
    seeds = [each for each in made.rejections() if each.rejected_kind == pb.KIND_SEED]
    assert [each.reason for each in seeds] == ["internal-error"]
    assert "duplicate argument" in seeds[0].detail
    assert made.progress["seeds"].kept == 5


async def test_a_filtered_completion_is_rejected_and_its_text_is_kept_once() -> None:
    made = bench("one-line", 5)

    def filtered(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if "seed_1()" in request.prompt:
            return inf.Completion(text="I", finish_reason=inf.FINISH_REASON_CONTENT_FILTER, detail="policy")
        return toys.said(toys.digest(sample.seed))

    made.fakes.inference.writes = filtered
    assert (await made.work()).rows > 1
    [rejection] = [each for each in made.rejections() if each.reason == "content-filter"]
    assert "policy" in rejection.detail
    texts = [record.completion for record in made.fakes.dataset.of_kind(pb.KIND_COMPLETION)]
    assert [each.finish_reason for each in texts if each.text == "I"] == ["content_filter"]


@pytest.mark.parametrize("error", [InvalidArgument("prompt", "has 9000 tokens"), FailedPrecondition("content_filter")])
async def test_one_prompt_that_is_refused_is_that_items_rejection(error: Exception) -> None:
    made = bench("one-line", 5)

    def refuses(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if "seed_1()" in request.prompt:
            raise error
        return toys.said(toys.digest(sample.seed))

    made.fakes.inference.writes = refuses
    first = await made.work()
    assert first.rows > 1
    [rejection] = [each for each in made.rejections() if each.reason.startswith("prompt-")]
    assert rejection.rejected_kind == pb.KIND_INSTRUCTION
    requests = len(made.fakes.inference.requests)
    assert (await made.work()).version == first.version
    assert len(made.fakes.inference.requests) == requests, "a refused prompt is found again"


async def test_a_model_that_is_gone_or_another_one_fails_the_run_and_rejects_nothing() -> None:
    made = bench("one-line")
    made.fakes.inference.add_model("model", "another")
    with pytest.raises(RunFailed, match="revision another"):
        await made.work()
    made.fakes.inference.writes = lambda request, sample: _raise(NotFound("the recording has no completion"))
    made.fakes.inference.add_model("model")
    with pytest.raises(RunFailed, match="has no completion"):
        await made.work()
    assert not made.rejections()


def _raise(error: Exception) -> inf.Completion:
    raise error


async def test_an_endpoint_that_refuses_everything_opens_the_breaker_and_no_item_is_lost() -> None:
    whole = bench("one-line", 60)
    expected = version(whole, await whole.work())
    made = bench("one-line", 60)
    made.settings.seeds_in_flight = 4
    made.fakes.inference.writes = lambda request, sample: _raise(InvalidArgument("prompt", "unknown argument: seed"))
    with pytest.raises(BreakerOpened, match=r"instructions: 20 of the last 20 items were refused; .*unknown argument"):
        await made.work()
    assert len(made.fakes.inference.requests) < 30, "most of the seeds are still to be worked on"
    assert not made.rejections()
    made.fakes.inference.writes = toys.writes
    assert version(made, await made.work()) == expected


async def test_a_parser_that_fails_on_everything_opens_the_breaker() -> None:
    made = bench("one-line", 120)
    made.settings.seeds_in_flight = 4
    made.fakes.inference.writes = lambda request, sample: toys.said("boom")
    with pytest.raises(BreakerOpened, match=r"instructions: .* internal errors; the last one: RecursionError"):
        await made.work()
    assert len(made.fakes.dataset.of_kind(pb.KIND_COMPLETION)) == made.fakes.inference.generated


async def test_faults_of_every_service_change_nothing_about_the_rows() -> None:
    whole = bench("fan-out")
    expected = version(whole, await whole.work())
    made, chance = bench("fan-out"), random.Random(5)

    def faults(method: str, request: Message) -> None:
        if chance.random() < 0.2:
            raise Unavailable("connection reset", retry_after=0.0)

    def rarer(method: str, request: Message) -> None:
        if chance.random() < 0.05:
            raise Unavailable("connection reset", retry_after=0.0)

    for control in (made.fakes.inference.control, made.fakes.sandbox.control):
        control.before = control.after = faults
    made.fakes.dataset.control.before = made.fakes.dataset.control.after = rarer
    assert version(made, await made.work()) == expected
    assert any(tally.retries for tally in made.progress.stages.values())


@in_virtual_time
async def test_a_run_that_is_interrupted_after_its_rows_were_chosen_chooses_the_same_ones() -> None:
    made = bench("one-line")
    failing = set((await _passed_programs())[::2])

    def judge(program: sb.Program) -> sb.Result:
        return sb.Result(verdict=sb.VERDICT_INFRASTRUCTURE) if program.code in failing else toys.judges(program)

    made.fakes.sandbox.judges = judge
    made.fakes.dataset.control.fail("publish_version", PermissionDenied("coordinator may not publish"))
    with pytest.raises(RunFailed, match="may not publish"):
        await made.work()
    chosen = made.rows()
    assert chosen
    undecided = [rejection for rejection in made.rejections() if rejection.reason == UNDECIDED]
    assert undecided, "the sandbox kept failing on some"
    stored = stored_progress(made.run.run, await made.counts())
    assert stored["execution"].reasons[UNDECIDED] == made.progress["execution"].reasons[UNDECIDED] == len(undecided)
    failing.clear()
    outcome = await made.work()
    assert made.rows() == chosen
    assert outcome.rows == len(chosen), "no instruction has a second row"
    assert f"{len(undecided)} program" in outcome.message


@in_virtual_time
async def test_what_could_not_be_judged_is_judged_again_until_rows_are_chosen() -> None:
    whole = bench("one-line")
    expected = version(whole, await whole.work())
    made = bench("one-line")
    made.fakes.sandbox.judges = lambda program: sb.Result(verdict=sb.VERDICT_INFRASTRUCTURE)
    with pytest.raises(BreakerOpened, match="the sandbox kept failing"):
        await made.work()
    assert not made.rejections() or all(each.reason != UNDECIDED for each in made.rejections())
    made.fakes.sandbox.judges = toys.judges
    assert version(made, await made.work()) == expected


@in_virtual_time
async def test_a_run_whose_runners_change_pauses_and_goes_on_with_the_old_ones() -> None:
    whole = bench("one-line")
    expected = version(whole, await whole.work())
    made = bench("one-line")
    old = made.fakes.sandbox.runner.image_digest

    def changes_once(program: sb.Program) -> sb.Result:
        made.fakes.sandbox.runner.image_digest = "sha256:" + "2" * 64
        return toys.judges(program)

    made.fakes.sandbox.judges = changes_once
    with pytest.raises(BreakerOpened, match="Restore that runner image and resume"):
        await made.work()
    assert {each.verdict.result.image_digest for each in made.fakes.dataset.of_kind(pb.KIND_VERDICT)} <= {old}
    made.fakes.sandbox.judges, made.fakes.sandbox.runner.image_digest = toys.judges, old
    assert version(made, await made.work()) == expected


async def _passed_programs() -> list[str]:
    """Return the programs that passed in an undisturbed run."""
    made, passed = bench("one-line"), list[str]()

    def judge(program: sb.Program) -> sb.Result:
        result = toys.judges(program)
        if result.verdict == sb.VERDICT_PASSED:
            passed.append(program.code)
        return result

    made.fakes.sandbox.judges = judge
    await made.work()
    return sorted(passed)


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        (
            lambda request, sample: inf.Completion(
                attempt=99, seed=1, text="x", finish_reason=inf.FINISH_REASON_LENGTH
            ),
            "attempt 99",
        ),
        (lambda request, sample: inf.Completion(text="x"), "has an unknown finish reason"),
        (lambda request, sample: _raise(Internal("the endpoint's answer has no choice")), "has no choice"),
    ],
)
async def test_garbage_of_the_engine_is_asked_for_again_and_then_told(
    garbage: Callable[[inf.GenerateRequest, inf.Sample], inf.Completion], says: str
) -> None:
    made, left = bench("one-line"), 3

    def sometimes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        nonlocal left
        left -= 1
        return garbage(request, sample) if left >= 0 else toys.writes(request, sample)

    made.fakes.inference.writes = sometimes
    await made.work()
    made = bench("one-line")
    made.fakes.inference.writes = garbage
    with pytest.raises(RunFailed, match=says):
        await made.work()
    assert not made.rejections()
    assert not made.fakes.dataset.of_kind(pb.KIND_COMPLETION)


async def test_one_prompt_that_the_engine_keeps_failing_on_ends_no_run() -> None:
    made, odd = bench("one-line", 30), ""

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        nonlocal odd
        if request.prompt.startswith("responses:"):
            odd = odd or request.prompt
        if request.prompt == odd:
            raise Internal("the endpoint's answer has no choice")
        return toys.writes(request, sample)

    made.fakes.inference.writes = write
    outcome = await made.work()
    assert outcome.rows > 2
    assert "internal error" in outcome.message
    found = [each for each in made.rejections() if each.reason == "internal-error"]
    assert found
    assert all("has no choice" in each.detail for each in found)


def late(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    """Fail as if there was no response within the deadline."""
    raise DeadlineExceeded("inference: no answer within 3600 s")


@pytest.mark.parametrize("seeds", [1, 12])
async def test_a_prompt_that_hangs_the_engine_is_that_items_rejection_after_bounded_tries(seeds: int) -> None:
    made, odd, tried = bench("fan-out", seeds), "", 0

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        nonlocal odd, tried
        if request.prompt.startswith("instructions:"):
            odd = odd or request.prompt
        if request.prompt == odd:
            tried += 1
            return late(request, sample)
        return toys.writes(request, sample)

    made.fakes.inference.writes = write
    await made.work()
    found = [each for each in made.rejections() if each.reason == "internal-error"]
    assert len(found) == 3, "one for each sample"
    assert all("request timed out after" in each.detail for each in found)
    assert made.progress["instructions"].reasons["internal-error"] == 3
    assert tried <= 3 * faults.HANG_TRIES
    assert not made.fakes.inference.running


async def test_an_engine_that_is_slow_for_everybody_rejects_nothing_and_is_waited_for() -> None:
    made, calls = bench("one-line", 6), 0

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        nonlocal calls
        calls += 1
        return late(request, sample) if 10 < calls < 300 else toys.writes(request, sample)

    made.fakes.inference.writes = write
    await made.work()
    assert calls > 300
    assert "internal-error" not in {each.reason for each in made.rejections()}


async def test_an_engine_that_answers_none_of_the_prompts_in_time_opens_the_breaker_and_no_item_is_lost() -> None:
    made = bench("one-line", 40)
    made.fakes.inference.writes = lambda request, sample: (
        toys.writes(request, sample) if request.prompt == "x" else late(request, sample)
    )
    with pytest.raises(BreakerOpened, match="ended in internal errors"):
        await made.work()
    assert not made.rejections()


async def test_a_fault_of_the_engine_after_a_long_outage_is_the_first_one() -> None:
    made = bench("one-line", 4)
    away = [Unavailable("restarts", retry_after=0.0) for _ in range(40)]
    made.fakes.inference.control.fail("generate", *away, *(Internal("starts") for _ in range(4)))
    assert (await made.work()).rows


async def test_no_seed_that_meets_the_rules_is_told() -> None:
    made = bench("one-line", 0, "bad one", "bad other")
    with pytest.raises(RunFailed, match="none of the seeds of collection 'seeds' meets the rules; collect some"):
        await made.work()
    assert made.progress["seeds"].reasons == {"seed.bad": 2}


async def test_near_duplicates_among_seeds_are_dropped_in_the_order_of_their_ids() -> None:
    text = " ".join(f"word{number}" for number in range(60))
    made = bench("one-line", 3, text, text + " more")
    await made.work()
    found = made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)
    [dropped] = [record for record in found if record.decision.rule == "seed.near-duplicate"]
    assert dropped.decision.duplicate_of < dropped.parents[0]


@pytest.mark.parametrize("name", SHAPES)
async def test_what_the_store_counts_is_what_the_run_counted(name: str) -> None:
    made = bench(name, 12)
    await made.work()
    stored = stored_progress(made.run.run, await made.counts())
    assert list(stored.stages) == list(made.progress.stages)
    for stage, tally in made.progress.stages.items():
        assert (stage, stored[stage].kept, stored[stage].reasons) == (stage, tally.kept, tally.reasons)
        assert tally.in_flight == 0


async def test_a_prefix_is_appended_once_and_not_with_every_draw() -> None:
    made, sent = bench("one-line", 30), Counter[str]()

    def count(method: str, request: Message) -> None:
        if method == "append":
            sent.update(record.id for record in request.records if record.kind == pb.KIND_PROMPT_PREFIX)  # type: ignore[attr-defined]

    made.fakes.dataset.control.before = count
    await made.work()
    assert set(sent.values()) == {1}
