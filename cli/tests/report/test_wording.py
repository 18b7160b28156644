"""The report's sentences: they claim no more than the numbers show."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import presets
from codealign.cli.commands import runs
from codealign.cli.main import app
from codealign.cli.report.outcome import cautions, headline
from codealign.cli.report.page import render
from codealign.cli.report.recipe import run_command
from codealign.cli.report.scores import Pair, brief_meaning, matches, meaning
from codealign.cli.report.terminal import print_report
from codealign.cli.report.wording import Words, chance, points, share
from codealign.cli.run_config import RunChoices, run_config


def printed(report: api.GetReportResponse, *, timings: bool = True) -> str:
    file = io.StringIO()
    console = Console(file=file, width=160, color_system=None, soft_wrap=True)
    version = (
        ds.Version(name=report.run.version, url="file:///data/v", rows=report.rows) if report.run.version else None
    )
    print_report(console, report, version=version, row_id="", timings=timings)
    return file.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def pair(problems: int, base: int, tuned: int, p_value: float) -> Pair:
    comparison = api.Comparison(
        benchmark="humaneval+",
        problems=problems,
        difference=(tuned - base) / problems if problems else 0.0,
        base_better=base,
        tuned_better=tuned,
        p_value=p_value,
        interval=api.Interval(low=-0.01, high=0.2),
    )
    return Pair(comparison, api.Evaluation(), api.Evaluation())


@pytest.mark.parametrize(
    ("compared", "brief", "long"),
    [
        (pair(164, 11, 16, 0.4421), "a difference that could be noise (p = 0.44)", "This could be noise: equally"),
        (pair(164, 12, 47, 5.2e-6), "a gain beyond noise (p < 0.001)", "less than 0.1%"),
        (pair(164, 40, 12, 0.0001), "a loss beyond noise (p < 0.001)", "is worse by 17.1 points"),
        (pair(164, 20, 36, 0.0441), "a gain beyond noise (p = 0.044)", "a probability of 4.4%"),
        (pair(164, 1, 4, 0.375), "could be noise (p = 0.38)", "Only 5 problems tell the two apart: too few to tell"),
        (pair(164, 0, 1, 1.0), "could be noise (p = 1.00)", "Only 1 problem tells the two apart"),
        (pair(164, 8, 8, 1.0), "could be noise (p = 1.00)", "the tuned model is equally good (95% interval"),
        (pair(20, 0, 0, 1.0), "no difference on any problem", "had the same results: no difference."),
        (pair(0, 0, 0, 1.0), "without common problems", "nothing to compare"),
    ],
)
def test_a_difference_is_called_what_it_is(compared: Pair, brief: str, long: str) -> None:
    assert brief in brief_meaning(compared)
    assert long in meaning(compared)


def test_the_headline_is_one_sentence(small: api.GetReportResponse, large: api.GetReportResponse) -> None:
    assert headline(small).replace("\N{NO-BREAK SPACE}", " ") == (
        "2 of 20 answers passed their tests; 2 rows published; pass@1 on HumanEval+ 28.0% → 31.1%, a difference that "
        "could be noise (p = 0.44)."
    )
    assert headline(large).endswith("; 2 of 4 benchmarks show a difference beyond noise.")


def test_the_benchmark_in_the_headline_does_not_depend_on_the_result(large: api.GetReportResponse) -> None:
    first = [benchmark.comparison.benchmark for benchmark in matches(large)[0].pairs]
    for comparison in large.comparisons:
        comparison.p_value = 1 - comparison.p_value
    assert [benchmark.comparison.benchmark for benchmark in matches(large)[0].pairs] == first
    assert "pass@1 on HumanEval+ 45.7%" in headline(large).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("state", "start"),
    [
        (pb.RUN_STATE_RUNNING, "Still running, so far: 2 of 20 answers"),
        (pb.RUN_STATE_PAUSED, "Paused: 2 of 20 answers"),
        (pb.RUN_STATE_CANCELLED, "Cancelled: 2 of 20 answers"),
        (pb.RUN_STATE_FAILED, "The run failed after this: 2 of 20 answers"),
    ],
)
def test_a_run_that_has_not_succeeded_says_so(
    small: api.GetReportResponse, state: pb.RunState.ValueType, start: str
) -> None:
    small.run.state = state
    small.run.version = ""
    small.ClearField("comparisons")
    small.ClearField("evaluations")
    assert headline(small).startswith(start)
    assert headline(small).endswith("2 rows selected, none published yet.")


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (pb.RUN_STATE_RUNNING, "Nothing has been done yet."),
        (pb.RUN_STATE_SUCCEEDED, "No answer was written."),
        (pb.RUN_STATE_CANCELLED, "The run was cancelled before it wrote an answer."),
        (pb.RUN_STATE_FAILED, "The run failed before it wrote an answer."),
    ],
)
def test_a_run_that_ended_without_an_answer_is_not_called_a_run_that_has_yet_to_start(
    empty: api.GetReportResponse, state: pb.RunState.ValueType, sentence: str
) -> None:
    empty.run.state = state
    assert headline(empty) == sentence


def test_small_numbers_are_pointed_out(small: api.GetReportResponse, large: api.GetReportResponse) -> None:
    for evaluation in [*small.evaluations, *large.evaluations]:
        evaluation.prompt_style = "base"
    for evaluation in small.evaluations:
        evaluation.problems_done = 20
    assert cautions(small) == [
        "2 rows show that the system works end to end; this is too little data to measure the method.",
        "HumanEval+ was evaluated on 20 problems only: intervals are wide.",
        "1 sample of qwen2.5-coder-1.5b on HumanEval+ has no verdict yet and is not counted.",
    ]
    assert cautions(large) == []


def test_a_difference_in_asking_is_pointed_out(large: api.GetReportResponse) -> None:
    for comparison in large.comparisons:
        for evaluation in large.evaluations:
            if evaluation.id in (comparison.base, comparison.tuned):
                evaluation.prompt_style = "tuned" if evaluation.id == comparison.tuned else "base"
    assert len(cautions(large)) == 1
    assert "the prompt style" in cautions(large)[0]


def test_numbers_for_people() -> None:
    assert [chance(value) for value in (0.0004, 0.0312, 0.4249, float("nan"))] == [
        "p < 0.001",
        "p = 0.031",
        "p = 0.42",
        "p unknown",
    ]
    assert [points(value) for value in (0.031, -0.0004, -0.031)] == ["+3.1", "0.0", "−3.1"]
    assert [share(*pair) for pair in ((0, 9), (1, 10**6), (1, 4), (0, 0))] == ["0.0%", "< 0.1%", "25.0%", ""]
    assert Words(api.Pipeline()).meaning_or_name("row.some-new_rule") == "row: some new rule"


def test_the_terminal_tells_of_training_comparison_and_one_row(small: api.GetReportResponse) -> None:
    text = printed(small)
    for part in (
        "training 9e41c07a5b3d: 24 optimizer steps on 2 rows (float32 on cpu, 1 worker, LoRA rank 16)",
        "  loss 0.788 → 0.543  █",
        "13.6 tokens per second",
        "HumanEval+  28.0% → 31.1%  21.7 to 35.3%  24.5 to 38.6%",
        "This could be noise: equally good models",
        "  seed         hmac/digests.py:41 compare_digest_lengths",
        "  concepts     total ordering, comparison operators",
        "  attempt 0    FAILED_ASSERTION (AssertionError; tests line 7; 2 assertions executed)",
        "  attempt 1    PASSED (2 assertions executed), chosen",
        f"codealign data lineage {small.trail[-1].id[:12]}",
        "codealign report 4be07f21c95a --html report.html",
    ):
        assert part in text, part


def test_without_timings_nothing_that_differs_between_runs_is_printed(small: api.GetReportResponse) -> None:
    before = printed(small, timings=False)
    small.checkpoints[0].provenance.seconds *= 2
    for record in small.trail:
        record.provenance.seconds *= 2
        if record.HasField("verdict"):
            record.verdict.result.wall_seconds *= 2
    assert printed(small, timings=False) == before


def test_the_terminal_is_steered_by_nobody(hostile: api.GetReportResponse) -> None:
    assert not set(printed(hostile)) & {"\x1b", "\x00", "\u202e", "\r"}


@pytest.mark.parametrize("preset", presets.names())
def test_the_command_that_runs_it_again_names_the_preset(preset: str, pipeline: api.Pipeline) -> None:
    choices = RunChoices(name="it's mine", limit=6, preset=preset, difficulties=("easy",))
    command = run_command(run_config(choices, "stdlib 3", "org/model", pipeline))
    assert "--runs" not in command
    assert "--runs 3" in run_command(run_config(RunChoices(runs=3), "stdlib 3", "org/model", pipeline))
    assert command.startswith("codealign run --collection 'stdlib 3' --n 6 --model org/model")
    assert ("--preset" in command) == (preset != "default")
    assert f"--preset {preset}" in command or preset == "default"
    assert command.endswith("--difficulty easy --name 'it'\"'\"'s mine'")


def test_the_command_that_runs_it_again_names_pipeline_and_strategy(pipeline: api.Pipeline) -> None:
    choices = RunChoices(pipeline="another", strategy="everything", attempts=3)
    command = run_command(run_config(choices, "stdlib", "m", pipeline))
    assert (
        command == "codealign run --collection stdlib --pipeline another --model m --attempts 3 --strategy everything"
    )
    chosen = run_config(RunChoices(preset="paper"), "stdlib", "m", pipeline)
    assert "--strategy" not in run_command(chosen), "the preset says it"


def test_the_command_that_runs_imports_again_names_no_model_since_none_writes() -> None:
    config = pb.Run(pipeline="imported", seeds=pb.SeedSelection(collection="theirs"), model=pb.ModelChoice(model="m"))
    assert run_command(config) == "codealign run --collection theirs --pipeline imported"


def test_reasons_mean_what_the_pipeline_says(pipeline: api.Pipeline) -> None:
    pipeline.stages[1].reasons["empty"] = "no concept at all"
    words = Words(pipeline)
    assert words.meaning("empty", "concepts") == "no concept at all"
    assert words.meaning("empty", "instructions") == "came back empty"
    assert words.meaning("PASSED") == "passed its tests"
    assert words.meaning("unheard-of") == ""
    assert words.title("concepts") == "Title of concepts"
    assert (words.title("unheard-of"), words.purpose("unheard-of")) == ("unheard-of", "")


class Services:
    """A coordinator that knows one run."""

    def __init__(self, report: api.GetReportResponse) -> None:
        self.clients = self
        self.coordinator = self
        self.GetRun, self.GetReport = "GetRun", "GetReport"
        self._report = report

    async def call(self, method: str, request: object, timeout: float = 0) -> Any:
        return api.GetRunResponse(run=self._report.run) if method == "GetRun" else self._report


def test_the_command_writes_the_page(
    small: api.GetReportResponse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.run.version = ""

    @asynccontextmanager
    async def services(*_: object, **__: object) -> AsyncIterator[Services]:
        yield Services(small)

    monkeypatch.setattr(runs, "services", services)
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    file = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", "first", "--html", str(file), "--open"])
    assert result.exit_code == 0, result.output
    assert file.read_text(encoding="utf-8") == render(small)
    assert f"report written to {file}" in result.output
    assert opened == [file.as_uri()]


def test_open_without_a_page_is_a_mistake() -> None:
    result = CliRunner().invoke(app, ["report", "--open"])
    assert result.exit_code == 1
    assert "needs --html FILE" in result.output
