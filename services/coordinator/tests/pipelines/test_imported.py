"""Imported responses are judged, selected and published without a model, over fakes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.errors import InvalidArgument, NotFound, Unavailable
from codealign.coordinator import pipelines
from codealign.coordinator.ground.faults import RunFailed, RunStopped
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.pipelines.stage import Item, Settings
from codealign.coordinator.reporting import report
from codealign.coordinator.rules import benchmarks
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs import plan
from codealign.coordinator.runs.config import run_records, with_defaults
from codealign.coordinator.runs.progress import stored_progress
from codealign.coordinator.runs.resolve import resolved
from fakes import FakeServices, toys
from fakes.sandbox import IMAGE_DIGEST, PYTHON_VERSION

IMPORTED = ("imported", "imported-unexecuted")
SOURCE = records.complete(
    pb.Record(kind=pb.KIND_IMPORT, import_source=pb.Import(name="theirs.jsonl", sha256="0" * 64, format="rows"))
)


def child(record: pb.Record, parent: pb.Record | None) -> pb.Record:
    record.provenance.import_id = SOURCE.id
    if parent is not None:
        record.parents.append(parent.id)
        record.key = records.content_hash(record)
    return records.complete(record)


def line(number: int, *answers: str, seed: bool = True) -> list[pb.Record]:
    """Return an imported instruction with what it derives from, and these answers to it."""
    made: list[pb.Record] = []
    words = toys.digest("task", number)
    if seed:
        code = f"def seed_{number}(): return {toys.digest(number)!r}"
        made.append(child(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=code)), None))
        concepts = pb.ConceptSet(concepts=[words[:4]])
        made.append(child(pb.Record(kind=pb.KIND_CONCEPT_SET, concept_set=concepts), made[-1]))
    instruction = pb.Instruction(text=f"Write a function that returns {words}.", difficulty="easy")
    made.append(child(pb.Record(kind=pb.KIND_INSTRUCTION, instruction=instruction), made[-1] if made else None))
    task = made[-1]
    for answer in answers:
        body = pb.Response(
            answer=answer, code=answer and f"def f{number}(): return {answer!r}", license="MIT", imported_from=SOURCE.id
        )
        body.tests = f"assert f{number}()"
        made.append(child(pb.Record(kind=pb.KIND_RESPONSE, response=body), task))
    return made


def judges(program: sb.Program) -> sb.Result:
    """Let programs pass that contain "right"."""
    passed = "right" in program.code
    return sb.Result(verdict=sb.VERDICT_PASSED if passed else sb.VERDICT_FAILED_ASSERTION, assertions_executed=1)


def right(number: int) -> str:
    return f"right {toys.digest('answer', number)}"


def bench(name: str = "imported", strategy: str = "", *, more: Sequence[pb.Record] = ()) -> toys.Bench:
    """Return a run over four right answers (one task without a seed), one wrong, and `more`. It has no model."""
    run = pb.Run(pipeline=name, seeds=pb.SeedSelection(collection=toys.SEEDS), seed=7)
    run.selection.strategy = strategy
    run = with_defaults(run)
    if run.execution.profile:
        run.execution.image_digest, run.execution.python_version = IMAGE_DIGEST, PYTHON_VERSION
    made = toys.Bench(run_records(run)[1])
    made.fakes.inference.models.clear()
    made.fakes.inference.control.away = Unavailable("there is no inference service", retry_after=1)
    made.fakes.sandbox.judges = judges
    given = [record for number in range(4) for record in line(number, right(number), seed=number != 3)]
    made.fakes.dataset.put(SOURCE, *given, *line(4, "wrong"), *more, collection=toys.SEEDS)
    return made


async def test_what_passes_becomes_a_row_with_its_licence_and_origin_and_no_model_is_asked() -> None:
    made = bench()
    outcome = await made.work()
    assert (outcome.rows, made.rejections()) == (4, [])
    assert not made.fakes.inference.control.calls
    for row in made.examples():
        assert (row.example.imported_from, row.example.license) == (SOURCE.id, "MIT")
        assert row.example.instruction.startswith("Write a function that returns ")
        assert row.example.difficulty == "easy"
        assert not row.example.tests_in_instruction
        verdict = made.fakes.dataset.records[row.example.verdict_id]
        assert verdict.parents == [row.example.lineage[-1].record_id]
    stages = sorted([step.stage for step in row.example.lineage] for row in made.examples())
    assert stages == [["instructions", "responses"], *[["seeds", "concepts", "instructions", "responses"]] * 3]
    (published,) = made.fakes.dataset.published
    assert (published.title, published.promise) == ("Imported coding instructions", "replayable")
    assert published.verdicts == [sb.VERDICT_PASSED]
    assert "few_shots_sha256" not in published.facts


async def test_everything_that_a_row_came_from_belongs_to_the_run() -> None:
    made = bench()
    await made.work()
    members = made.fakes.dataset.collections[made.run.id]
    assert SOURCE.id in members
    assert {step.record_id for row in made.examples() for step in row.example.lineage} <= members


async def test_without_execution_everything_is_taken_and_says_that_it_was_not_executed() -> None:
    made = bench("imported-unexecuted", more=line(5, "Prose without code."))
    made.fakes.sandbox.control.away = Unavailable("there is no sandbox", retry_after=1)
    outcome = await made.work()
    assert outcome.rows == 6
    assert not made.fakes.sandbox.control.calls
    (published,) = made.fakes.dataset.published
    assert published.not_executed


async def test_the_funnel_says_why_an_imported_row_is_missing() -> None:
    todo = "right, but TODO later"
    more = [*line(5, ""), *line(6, right(0)), *line(7, todo)]
    lost = records.complete(
        pb.Record(
            kind=pb.KIND_RESPONSE, response=pb.Response(answer="right", code="right = 1", imported_from=SOURCE.id)
        )
    )
    made = bench(more=[*more, lost])
    await made.work()
    reasons = {name: dict(tally.reasons) for name, tally in made.progress.stages.items()}
    assert reasons["responses"] == {"imported.no-code": 1}
    assert reasons["execution"] == {"FAILED_ASSERTION": 1}
    duplicates = {rule: count for rule, count in reasons["selection"].items() if rule.startswith("dedup.")}
    assert sum(duplicates.values()) == 1
    others = {rule: count for rule, count in reasons["selection"].items() if rule not in duplicates}
    assert others == {"row.placeholder": 1, "imported.no-instruction": 1}
    for name, tally in stored_progress(made.run.run, await made.counts()).stages.items():
        live = made.progress[name]
        assert (tally.kept, dict(tally.reasons)) == (live.kept, dict(live.reasons)), name


def test_a_benchmark_s_text_is_found_in_the_instruction_and_in_the_response(tmp_path: Path) -> None:
    text = "Return the number of vowels in a text, where the letter y counts only at its end."
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"task_id": "Mine/3", "text": text}))
    texts, stage = benchmarks.load(tmp_path), pipelines.get("imported").selection
    settings = Settings(bench().run.run)

    def dropped(task: str, answer: str) -> str:
        *rest, response = line(1, answer)
        rest[-1].instruction.text = task
        item = Item(response, response.id, {"instructions": rest[-1], "responses": response})
        drop = stage.drop(item, settings, texts)
        return drop.rule if drop else ""

    assert dropped("Another task.", "Another answer.") == ""
    assert dropped(f"Please: {text}", "Another answer.") == "instruction.benchmark-text"
    assert dropped("Another task.", f"# {text}") == "row.benchmark-text"


async def test_with_everything_several_answers_to_one_instruction_are_rows() -> None:
    answers = [right(10), "wrong", f"right {toys.digest('other')}"]
    made = bench("imported", "everything", more=line(10, *answers))
    outcome = await made.work()
    assert outcome.rows == 4 + 1 + 3
    first = bench("imported", "first-pass", more=line(10, *answers))
    assert (await first.work()).rows == 4 + 1
    assert first.progress["selection"].reasons["dedup.instruction"] == 1


@pytest.mark.parametrize("name", IMPORTED)
async def test_an_interrupted_run_continues_to_the_same_rows(name: str) -> None:
    more = [record for number in range(20, 30) for record in line(number, right(number), right(number + 50))]
    whole = bench(name, more=more)
    await whole.work()
    made, allowed, left, stops = bench(name, more=more), 0, 0, 0

    def gate() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RunStopped("a test stops it")

    made.gate = gate
    while True:
        allowed += 7
        left = allowed
        try:
            await made.work()
            break
        except RunStopped:
            stops += 1
    assert stops > 2
    assert made.rows() == whole.rows()
    assert [row.id for row in made.examples()] == [row.id for row in whole.examples()]


@pytest.mark.parametrize("name", IMPORTED)
async def test_a_run_is_planned_and_resolved_without_a_model(name: str) -> None:
    made = bench(name)
    given = pb.Run(pipeline=name, seeds=pb.SeedSelection(collection=toys.SEEDS))
    run, notes = await resolved(given, made.fakes.services, BenchmarkTexts())
    assert not run.HasField("model") or not run.model.model
    found = await plan.build(made.fakes.services, run, list(notes))
    stages = {stage.stage: stage.items for stage in found.stages}
    assert stages.pop("execution", 5) == 5
    assert stages == {"responses": 5, "selection": 5}
    assert not made.fakes.inference.control.calls
    assert plan.most_rows(run, await plan.available_of(made.fakes.services, run)) == found.stages[-1].items


async def test_a_pipeline_that_writes_still_needs_a_model() -> None:
    made = bench()
    made.fakes.inference.control.away = None
    given = pb.Run(pipeline="selfcodealign", seeds=pb.SeedSelection(collection=toys.SEEDS))
    with pytest.raises(Exception, match="no model is loaded"):
        await resolved(given, made.fakes.services, BenchmarkTexts())


async def test_a_collection_without_responses_is_refused_with_the_command_that_makes_one() -> None:
    services = FakeServices()
    services.dataset.put(*toys.seeds(2), collection="seeds")
    given = pb.Run(pipeline="imported-unexecuted", seeds=pb.SeedSelection(collection="seeds"))
    with pytest.raises(NotFound, match="has no responses: import some with `codealign import"):
        await resolved(given, services.services, BenchmarkTexts())


async def test_settings_of_stages_that_are_not_there_are_refused() -> None:
    given = pb.Run(pipeline="imported", seeds=pb.SeedSelection(collection="x"), few_shot_set="nano")
    given.stages.add(stage="responses", attempts=3)
    with pytest.raises(InvalidArgument) as caught:
        with_defaults(given)
    assert dict(caught.value.violations) == {
        "config.few_shot_set": "no model writes in pipeline 'imported': leave it out",
        "config.stages[0].stage": "'responses' is not generated by a model and has no settings",
    }


async def test_if_nothing_can_be_executed_the_run_says_so() -> None:
    made = bench()
    made.fakes.dataset.collections[toys.SEEDS] = set()
    made.fakes.dataset.put(SOURCE, *line(1, ""), collection=toys.SEEDS)
    with pytest.raises(RunFailed, match=r"none of the responses of collection 'seeds' meets the rules"):
        await made.work()


async def test_the_report_counts_imported_rows_and_names_their_file() -> None:
    made = bench()
    await made.work()
    status = api.RunStatus(id=made.run.id, config=made.run.run)
    status.stages.extend(stored_progress(made.run.run, await made.counts()).to_wire())
    found = await report.build(made.fakes.services, status)
    assert {stage.stage: (stage.kept, dict(stage.reasons)) for stage in found.stages} == {
        "responses": (5, {}),
        "execution": (4, {"FAILED_ASSERTION": 1}),
        "selection": (4, {}),
    }
    assert dict(found.verdicts) == {"PASSED": 4, "FAILED_ASSERTION": 1}
    assert SOURCE.id in {record.id for record in found.trail_references}


async def test_what_a_run_made_can_be_judged_again_as_a_collection() -> None:
    """Responses that were not imported have no origin; everything else is the same."""
    made = bench()
    own = line(9, right(9))
    own[-1].response.imported_from = own[-1].response.license = ""
    own[-1].key = own[-1].id = own[-1].content_hash = ""
    own[-1].key = records.content_hash(own[-1])
    made.fakes.dataset.put(*own, collection=toys.SEEDS)
    await made.work()
    assert sorted(row.example.imported_from for row in made.examples()) == ["", *[SOURCE.id] * 4]


async def test_an_answer_that_was_made_here_has_the_licence_of_its_instruction() -> None:
    made = bench("imported-unexecuted")
    *given, task, answer = line(9, right(9))
    task.instruction.license, answer.response.license, answer.response.imported_from = "CC0-1.0", "", ""
    for record in (task, answer):
        record.id = record.content_hash = record.key = ""
    del task.parents[:]
    answer.parents[:] = [child(task, None).id]
    answer.key = records.content_hash(answer)
    made.fakes.dataset.put(*given, task, records.complete(answer), collection=toys.SEEDS)
    await made.work()
    assert sorted(row.example.license for row in made.examples()) == ["CC0-1.0", *["MIT"] * 5]


async def test_a_record_of_the_run_s_collection_is_counted_once() -> None:
    made = bench()
    await made.work()
    async with RunStore(made.fakes.dataset, made.run.id):
        counted = await made.fakes.dataset.count(ds.CountRequest(collection=made.run.id))
    assert sum(each.count for each in counted.counts if each.kind == pb.KIND_IMPORT) == 1
