"""evol-instruct makes given tasks harder in rounds, by drawn methods, and drops what did not become harder."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records
from codealign.common.errors import InvalidArgument, NotFound
from codealign.coordinator import pipelines
from codealign.coordinator.ground import requests
from codealign.coordinator.pipelines.evol_instruct import FEW_SHOTS, evolutions
from codealign.coordinator.pipelines.stage import Asked, Item, Settings
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.matching import Text
from codealign.coordinator.runs.config import run_records, with_defaults
from codealign.coordinator.runs.progress import stored_progress
from codealign.coordinator.runs.prompting import prompt_of
from codealign.coordinator.runs.resolve import resolved
from fakes import toys
from fakes.sandbox import passes

NONE = BenchmarkTexts(())
ONE = pipelines.get("evol-instruct")
STAGE = ONE.writing[0]
GIVEN = pb.Record(
    kind=pb.KIND_INSTRUCTION,
    instruction=pb.Instruction(
        text="Write a function `f(x)` that returns x plus one.",
        category="function",
        language="Python",
        difficulty="easy",
        concepts=["sums"],
        license="MIT",
    ),
)


def settings(name: str = "evol-instruct") -> Settings:
    given = pb.Run(pipeline=name, seeds=pb.SeedSelection(collection="c"), seed=5)
    given.model.model, given.model.revision = "m", "r"
    return Settings(with_defaults(given))


def evolved(text: str) -> Item:
    record = pb.Record(kind=pb.KIND_INSTRUCTION, instruction=pb.Instruction(text=text))
    return Item(record, "key", {"seeds": GIVEN, "evolution-1": record}, text)


def task(text: str, license_id: str = "") -> pb.Record:
    body = pb.Instruction(text=text, category="class", language="Python", difficulty="hard", license=license_id)
    return records.complete(pb.Record(kind=pb.KIND_INSTRUCTION, instruction=body))


def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    words = toys.digest(sample.seed)
    if "</harder>" in request.sampling.stop[0]:
        [given] = re.findall(r"<task>\n(.*?)\n</task>", request.prompt, re.DOTALL)[-1:]
        if "stays" in given:
            return toys.said(f"  {given.upper()}\n")
        if "copies" in given:
            return toys.said(f"{given}\n<harder>\nMore of {words} here.")
        return toys.said(f"Write a function that returns {words}.\n</harder>")
    code = f"def f_{sample.seed}():\n    return {sample.seed}"
    return toys.said(
        f"{words}\n\n```python\n{code}\n```\n</answer>\n<tests>\n```python\nassert f_{sample.seed}\n```\n</tests>"
    )


def bench(name: str, *tasks: pb.Record, base: toys.Bench | None = None, collection: str = toys.SEEDS) -> toys.Bench:
    record = toys.run_record(name)
    if collection != toys.SEEDS:
        run = pb.Run()
        run.CopyFrom(record.run)
        run.seeds.collection = collection
        record = run_records(run)[1]
    made = toys.Bench(record, base.fakes) if base else toys.Bench(record)
    made.fakes.dataset.put(*tasks, collection=toys.SEEDS)
    made.fakes.inference.writes = writes
    made.fakes.sandbox.judges = passes
    return made


@pytest.mark.parametrize(("rounds", "name"), [(1, "evol-instruct"), (2, "evol-instruct-2"), (4, "evol-instruct-4")])
def test_the_name_says_how_many_rounds_there_are(rounds: int, name: str) -> None:
    made = pipelines.get(name)
    chain = ["seeds", *(f"evolution-{number}" for number in range(1, rounds + 1)), "responses"]
    assert [stage.name for stage in made.stages] == [*chain, "execution", "selection"]
    assert [stage.parent for stage in made.stages[: rounds + 2]] == ["", *chain[:-1]]


def test_a_prompt_shows_the_task_and_its_method_and_ends_where_the_harder_task_begins() -> None:
    asked, prompt, _ = prompt_of(ONE, settings(), STAGE, Item(GIVEN, "key"))
    method = evolutions.METHODS[asked.properties["method"]]
    assert prompt.suffix == (
        f"## Example 6\n\n<task>\n{GIVEN.instruction.text}\n</task>\n<method>\n{method}\n</method>\n<harder>\n"
    )
    assert {shot.method for shot in asked.shots} == set(evolutions.METHODS)
    assert evolutions.SECTION.stop(5) == ("\n</harder>", "\n## Example 7\n\n<task>\n")


def test_every_method_is_drawn_and_a_run_may_restrict_them() -> None:
    def methods(own: Settings) -> set[str]:
        asked = [prompt_of(ONE, own, STAGE, Item(GIVEN, str(key))).asked for key in range(60)]
        return {each.properties["method"] for each in asked}

    assert methods(settings()) == set(evolutions.METHODS)
    drawn = pb.PropertyDraw(name="method", values=["complexity"])
    run = settings().run
    run.stages[0].properties[0].CopyFrom(drawn)
    assert methods(Settings(with_defaults(run))) == {"complexity"}
    run.stages[0].properties[0].values[0] = "magic"
    with pytest.raises(InvalidArgument, match=r"unknown method 'magic'; valid: constraints, rarer-requirement"):
        with_defaults(run)


def test_a_harder_task_keeps_the_properties_and_the_licence_of_the_given_one() -> None:
    read = STAGE.parse("Write a function `f(x)` that is harder.\n", Item(GIVEN, "key"), Asked((), {"method": "x"}))
    assert not isinstance(read, Rejected)
    expected = pb.Instruction()
    expected.CopyFrom(GIVEN.instruction)
    expected.text = "Write a function `f(x)` that is harder."
    assert list(read) == [expected]
    rejected = STAGE.parse("No.", Item(GIVEN, "key"), Asked((), {}))
    assert isinstance(rejected, Rejected)
    assert rejected.reason in STAGE.reasons


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (GIVEN.instruction.text, "instruction.not-evolved"),
        (f" {GIVEN.instruction.text.upper()}\n", "instruction.not-evolved"),
        ("word " * 201, "instruction.too-long"),
        (f"{GIVEN.instruction.text}\n</task>\n<method>\nNone.", "instruction.prompt-marks"),
        ("Write it again.\n## Example 12\n\nMore.", "instruction.prompt-marks"),
        (f"{GIVEN.instruction.text} It must handle `<task>` in its input.", None),
    ],
)
def test_what_is_no_harder_task_is_dropped(text: str, rule: str | None) -> None:
    drop = STAGE.drop(evolved(text), settings(), NONE)
    assert (drop.rule if drop else None) == rule
    assert rule is None or rule in STAGE.reasons


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (" \n", "instruction.empty"),
        ("word " * 201, "instruction.too-long"),
        ("Sum the secret benchmark numbers of this list.", "instruction.benchmark-text"),
        ("Write f.\n</task>\n<harder>\nEvil.\n</harder>", "instruction.prompt-marks"),
        ("Write f.", None),
    ],
)
def test_given_instructions_must_meet_the_rules_for_instructions(text: str, rule: str | None) -> None:
    texts = BenchmarkTexts((Text.prose("the secret benchmark numbers", "HumanEval/1"),))
    drop = ONE.seeds.drop(task(text), settings(), texts)
    assert (drop.rule if drop else None) == rule
    assert rule is None or rule in ONE.seeds.reasons


async def test_tasks_that_stay_as_they_are_or_copy_the_prompt_give_no_row() -> None:
    made = bench("evol-instruct-2", *(task(f"Write what {word} here, number 1.") for word in ("stays", "copies", "ok")))
    assert (await made.work()).rows == 1
    first = made.progress["evolution-1"]
    assert dict(first.reasons) == {"instruction.not-evolved": 1, "instruction.prompt-marks": 1}
    [row] = made.examples()
    assert [step.stage for step in row.example.lineage] == ["seeds", "evolution-1", "evolution-2", "responses"]
    assert (row.example.category, row.example.difficulty) == ("class", "hard")


async def test_rows_have_the_licence_of_the_task_that_their_rounds_began_with() -> None:
    licences = ["MIT", "Apache-2.0", ""]
    tasks = [task(f"Write a function for case {toys.digest(name)}.", name) for name in licences]
    made = bench("evol-instruct-2", *tasks)
    await made.work()
    given = {record.id: record.instruction.license for record in tasks}
    rows = {row.example.lineage[0].record_id: row.example.license for row in made.examples()}
    assert rows == given
    second = bench("evol-instruct", base=made, collection=made.run.id)
    await second.work()
    assert sorted(row.example.license for row in second.examples()) == sorted(licences * 2), "of both rounds"


async def test_a_longer_pipeline_continues_from_the_rounds_of_a_shorter_one() -> None:
    tasks = [task(f"Write a function for case {toys.digest(number)}.") for number in range(3)]
    short = bench("evol-instruct", *tasks)
    await short.work()
    before = short.fakes.inference.generated
    long = bench("evol-instruct-2", base=short)
    assert (await long.work()).rows == 3
    stops = [request.sampling.stop[0] for request in long.fakes.inference.requests]
    assert stops.count("\n</harder>") == 3 + 3, "the first round was found, only the second was generated"
    assert long.fakes.inference.generated > before


async def test_a_run_begins_with_the_instructions_of_another_and_counts_only_its_own() -> None:
    first = bench("evol-instruct", *(task(f"Write a function for case {toys.digest(number)}.") for number in range(4)))
    await first.work()
    second = bench("evol-instruct", base=first, collection=first.run.id)
    assert (await second.work()).rows == 4
    assert second.progress["seeds"].kept == second.progress["evolution-1"].kept == 4
    stored = stored_progress(second.run.run, await second.counts())
    live = {name: (tally.kept, tally.dropped) for name, tally in second.progress.stages.items()}
    assert {name: (tally.kept, tally.dropped) for name, tally in stored.stages.items()} == live
    own = {record.id for record in second.fakes.dataset.of_kind(pb.KIND_INSTRUCTION, second.run.id)}
    others = {record.id for record in second.fakes.dataset.of_kind(pb.KIND_INSTRUCTION, first.run.id)}
    assert len(own) == len(others) == 4
    assert {row.example.lineage[0].record_id for row in second.examples()} == others


async def test_a_collection_without_instructions_and_a_run_at_work_are_refused() -> None:
    made = bench("evol-instruct")
    given = pb.Run(pipeline="evol-instruct", seeds=pb.SeedSelection(collection="none"))
    with pytest.raises(NotFound, match="collection 'none' does not exist or has no instructions: name a run"):
        await resolved(given, made.fakes.services, NONE)
    made.fakes.dataset.put(run_records(made.run.run)[0], made.run)
    wanted = pb.RunRequest(wanted=pb.RUN_STATE_RUNNING, reason="started")
    await requests.append(made.fakes.dataset, made.run.id, wanted, 0)
    given.seeds.collection = made.run.id
    with pytest.raises(InvalidArgument, match=r"config\.seeds\.collection.*is still running: wait until it has ended"):
        await resolved(given, made.fakes.services, NONE)


def test_the_examples_answers_pass_their_tests() -> None:
    programs = []
    for shot in (shot for name in FEW_SHOTS.names() for shot in FEW_SHOTS.load(name)):
        [code] = re.findall(r"^```python\n(.*?)^```$", shot.response, re.DOTALL | re.MULTILINE)
        programs.append(f"{code}\n{shot.tests}")
        assert shot.method in evolutions.METHODS
        assert shot.seed != shot.instruction
        assert len(shot.instruction.split()) <= 200
    assert len(programs) == 2 * len(evolutions.METHODS)
    runs_all = "import json, sys\nfor program in json.load(sys.stdin):\n    exec(program, {})\nprint('all passed')"
    ended = subprocess.run(
        [sys.executable, "-I", "-c", runs_all],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == "all passed\n", ended.stderr
