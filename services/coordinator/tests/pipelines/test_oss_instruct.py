"""oss-instruct writes task and answer in one completion, executes nothing, and finds duplicates as published."""

from __future__ import annotations

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records
from codealign.coordinator.pipelines.oss_instruct import PIPELINE, pairs
from codealign.coordinator.pipelines.snippets import snippet
from codealign.coordinator.pipelines.stage import Asked, Item, Settings
from codealign.coordinator.reading import sections
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import Row, RowDuplicates
from codealign.coordinator.runs.config import with_defaults
from codealign.coordinator.runs.prompting import prompt_of
from fakes import toys

NONE = BenchmarkTexts(())
SEED = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="a = 1\nb = 2\n")))
STAGE = PIPELINE.writing[0]
TASK = "Write a function `add(x, y)` that returns the sum."
CODE = "def add(x, y):\n    return x + y"
ANSWER = f"One addition does it.\n\n```python\n{CODE}\n```"
WHOLE = f"{TASK}\n</task>\n<answer>\n{ANSWER}\n</answer>\n"


def settings() -> Settings:
    given = pb.Run(pipeline="oss-instruct", seeds=pb.SeedSelection(collection="c"), seed=3)
    given.model.model, given.model.revision = "m", "r"
    return Settings(with_defaults(given))


def parsed(text: str, reason: inf.FinishReason.ValueType = inf.FINISH_REASON_END_TOKEN, stop: str = "") -> object:
    """Return what becomes of a completion."""
    completion = inf.Completion(text=text, finish_reason=reason, stop_string=stop)
    read = sections.read(completion, pairs.SECTION, 3)
    return read if isinstance(read, Rejected) else STAGE.parse(read, Item(SEED, SEED.id), Asked((), {}))


def candidate(task: str = TASK, answer: str = ANSWER, code: str = CODE, text: str = WHOLE) -> Item:
    response = pb.Record(id="r", response=pb.Response(instruction=task, answer=answer, code=code))
    return Item(response, "key", {"seeds": SEED, "pairs": response}, text)


def test_it_is_greedy_draws_once_and_executes_nothing() -> None:
    own = settings().of("pairs")
    assert (own.temperature, own.attempts, own.max_tokens) == (0.0, 1, 1536)
    assert PIPELINE.execution is None


def test_a_prompt_shows_snippets_tasks_and_answers_and_ends_where_the_task_begins() -> None:
    item = Item(SEED, SEED.id, {"seeds": SEED})
    asked, prompt, _ = prompt_of(PIPELINE, settings(), STAGE, item)
    drawn = snippet(SEED.seed.code, settings().number(SEED.id))
    assert prompt.suffix == f"## Example 4\n\n<code>\n{drawn}\n</code>\n<task>\n"
    for shot in asked.shots:
        assert f"</code>\n<task>\n{shot.instruction}\n</task>\n<answer>\n{shot.response}\n</answer>\n" in prompt.prefix
        assert shot.tests not in prompt.prefix


@pytest.mark.parametrize(
    ("text", "reason", "stop"),
    [
        pytest.param(WHOLE, inf.FINISH_REASON_END_TOKEN, "", id="ended by itself"),
        pytest.param(
            WHOLE.removesuffix("\n```\n</answer>\n"),
            inf.FINISH_REASON_STOP_STRING,
            "\n```\n</answer>",
            id="stopped at the end",
        ),
        pytest.param(f"<task>\n{WHOLE}", inf.FINISH_REASON_END_TOKEN, "", id="repeats the opening tag"),
        pytest.param(WHOLE.removesuffix("</answer>\n"), inf.FINISH_REASON_END_TOKEN, "", id="no last tag"),
        pytest.param(
            f"{WHOLE}\n## Example 5\n\n<code>\nx", inf.FINISH_REASON_LENGTH, "", id="goes on with another example"
        ),
    ],
)
def test_task_and_answer_are_read(text: str, reason: inf.FinishReason.ValueType, stop: str) -> None:
    assert parsed(text, reason, stop) == [pb.Response(instruction=TASK, answer=ANSWER, code=f"{CODE}\n")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("   \n\n", "empty"),
        (f"Add.\n</task>\n<answer>\n{ANSWER}\n</answer>", "empty"),
        (f"{TASK}\n{ANSWER}", "no-task-end"),
        (f"{TASK}\n<answer>\n{ANSWER}\n</answer>", "no-task-end"),
        (f"{TASK}\n</task>\n{ANSWER}", "no-answer-section"),
        (f"{TASK}\n</task>\n<answer>\nJust use `+`.\n</answer>", "no-code-block"),
        (f"{TASK}\n</task>\n<answer>\n```java\nint x;\n```\n</answer>", "no-code-block"),
        (f"{TASK}\n```text\n</task>\n```\n<answer>\n{ANSWER}", "no-task-end"),
        (f"{TASK}\n</task>\n<answer>\nHere.\n\n```python\ndef add(", "cut-off"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, expected: str) -> None:
    found = parsed(text)
    assert isinstance(found, Rejected)
    assert found.reason == expected
    assert expected in STAGE.reasons


def test_a_text_at_its_limit_is_no_pair() -> None:
    found = parsed(WHOLE.removesuffix("\n```\n</answer>\n"), inf.FINISH_REASON_LENGTH)
    assert isinstance(found, Rejected)
    assert found.reason == "cut-off"


def test_tags_in_code_are_code() -> None:
    code = 'TAGS = """\n</answer>\n</task>\n<answer>\n"""'
    found = parsed(f"{TASK}\n</task>\n<answer>\n```python\n{code}\n```\n</answer>\n")
    assert isinstance(found, list)
    assert (found[0].code, found[0].instruction) == (f"{code}\n", TASK)


@pytest.mark.parametrize("mark", ["## Example 7", "<answer>", " </code>", "<Task>"])
def test_a_task_that_contains_a_line_of_the_prompts_is_dropped(mark: str) -> None:
    drop = STAGE.drop(candidate(f"{TASK}\n{mark}\nAlso do this."), settings(), NONE)
    assert drop is not None
    assert drop.rule == "instruction.prompt-marks"
    assert STAGE.drop(candidate(f"{TASK} Mention `{mark}` in a sentence."), settings(), NONE) is None


def test_a_long_task_is_dropped_by_the_runs_limit() -> None:
    drop = STAGE.drop(candidate("word " * 201), settings(), NONE)
    assert drop is not None
    assert drop.rule == "instruction.too-long"


def test_an_answer_that_repeats_code_of_its_task_is_dropped() -> None:
    task = f"{TASK} Complete this:\n\n```python\ndef add(x,y):\n    return x+y\n```"
    drop = PIPELINE.selection.drop(candidate(task), settings(), NONE)
    assert drop is not None
    assert drop.rule == "row.copied-code"
    assert drop.rule in PIPELINE.selection.reasons
    assert PIPELINE.selection.drop(candidate(f"{TASK}\n\n```python\nadd(1, 2)\n```"), settings(), NONE) is None


def test_a_row_has_the_responses_own_task_and_no_tests() -> None:
    row = PIPELINE.selection.example(candidate(), settings(), "key")
    assert row == pb.Example(instruction=TASK, response=ANSWER)
    compared = PIPELINE.selection.compared(candidate(), settings())
    assert compared.instruction == TASK
    assert compared.snippet == snippet(SEED.seed.code, settings().number(SEED.id))


def test_duplicates_are_equal_snippets_tasks_or_answers_and_nothing_else() -> None:
    kept = RowDuplicates(0.7, rules=PIPELINE.selection.duplicate_rules)
    first = Row("1", "Write f.", "The answer.", "def f(): return 1", "a = 1")
    assert kept.offer(first) is None
    for row, rule in (
        (Row("2", "Write g.", "Other.", "x", "a  =\n1"), "dedup.snippet"),
        (Row("3", "Write  f.", "Other.", "x", "b"), "dedup.instruction"),
        (Row("4", "Write g.", "The\nanswer.", "x", "b"), "dedup.response"),
        (Row("5", "Write g.", "Other.", "def f(): return 1", "b"), None),
    ):
        drop = kept.offer(row)
        assert (drop.rule if drop else None) == rule
        assert rule is None or rule in PIPELINE.selection.reasons


async def test_seeds_with_the_same_lines_give_one_row() -> None:
    made = toys.Bench(toys.run_record("oss-instruct"))
    texts = ["x = 1", "x  = 1", "y = 2 + 3"]
    seeds = [records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=text))) for text in texts]
    made.fakes.dataset.put(*seeds, collection=toys.SEEDS)

    def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        task = f"Write a function that returns {toys.digest(sample.seed)}."
        code = f"def f():\n    return {sample.seed}"
        return toys.said(f"{task}\n</task>\n<answer>\nSo: {code[-9:]}\n\n```python\n{code}\n```\n</answer>")

    made.fakes.inference.writes = writes
    assert (await made.work()).rows == 2
    assert not made.fakes.sandbox.requests
    dropped = [each.decision.rule for each in made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)]
    assert dropped.count("seed.near-duplicate") + dropped.count("dedup.snippet") == 1
