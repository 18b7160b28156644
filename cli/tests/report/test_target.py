"""Targets of a run: options, run files, the plan, the status line and the report."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.main import app
from codealign.cli.plan import print_plan
from codealign.cli.progress import headline, plain_line
from codealign.cli.refusals import refusal
from codealign.cli.report import page, recipe, target
from codealign.cli.report.terminal import print_report
from codealign.cli.run_config import RunChoices, run_config
from codealign.cli.run_file import read_run

SUMMARY = pb.TargetSummary(
    why="rows",
    rows=400,
    tokens=1_200_000,
    seeds=900,
    left_instructions=300,
    left_attempts=2100,
    left_tokens=420_000,
    left_rows=50,
    left_tokens_elsewhere=150_000,
    mix=[
        pb.TargetShare(property="difficulty", value="easy", instructions=300, rows=200),
        pb.TargetShare(property="difficulty", value="hard", instructions=600, rows=200),
    ],
)


def console() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=200, color_system=None), file


def test_options_win_over_the_run_file_field_by_field(tmp_path: Path, pipeline: api.Pipeline) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("target: {rows: 5, window: 64, device_hours: 2}\n")
    choices = RunChoices(target={"rows": 9}, file=read_run("--config", path).settings)
    config = run_config(choices, "stdlib", "m", pipeline)
    assert config.target == pb.Target(rows=9, window=64, device_hours=2)
    assert not run_config(RunChoices(), "stdlib", "m", pipeline).HasField("target")


@pytest.mark.parametrize("option", ["--rows", "--token-budget", "--devices"])
def test_a_target_that_is_not_positive_is_refused_by_its_option(option: str) -> None:
    result = CliRunner().invoke(app, ["run", option, "0"])
    assert result.exit_code == 2
    assert option in result.output


def test_a_refused_target_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("target:\n  window: 8\n  rows: 0\n")
    file = read_run("--config", path)
    told = refusal(pb.Run(target=pb.Target(rows=0)), [("config.target.rows", "is 0; must be above 0")], file)
    assert told.message == f"invalid run settings: target.rows: is 0; must be above 0 (--config {path}, line 3)"
    given_as_option = refusal(pb.Run(), [("config.target.device_hours", "is 0; must be above 0")], file)
    assert given_as_option.message == "invalid run settings: target.device_hours: is 0; must be above 0"


def test_a_plan_has_upper_bounds_the_forecast_and_the_notes() -> None:
    plan = api.PlanRunResponse(
        run_id="ab" * 16,
        stages=[
            api.PlannedStage(stage="seeds", items=1234),
            api.PlannedStage(stage="responses", items=500, prompt_tokens=70_000, generated_tokens=80_000),
        ],
        notes=["a note"],
        forecast=api.Forecast(text="about 40 rows"),
    )
    shown, file = console()
    print_plan(shown, plan)
    text = file.getvalue()
    for part in (
        "run abababababab: not started",
        "1,234",
        "70,000",
        "80,000",
        "forecast: about 40 rows",
        "note: a note",
    ):
        assert part in text


def test_a_plan_names_the_state_of_a_run_that_exists() -> None:
    shown, file = console()
    print_plan(shown, api.PlanRunResponse(run_id="ab" * 16), "succeeded")
    assert "run abababababab: exists already, succeeded" in file.getvalue()


def test_the_status_line_has_the_forecast() -> None:
    status = api.RunStatus(id="ab" * 16, state=pb.RUN_STATE_RUNNING)
    status.forecast.text = "7 of 40 rows; about 3 min"
    assert plain_line(status).endswith("7 of 40 rows; about 3 min")
    assert headline(status, 3).plain.endswith("7 of 40 rows; about 3 min")


def test_the_report_says_what_was_saved_and_how_the_mix_moved(small: api.GetReportResponse) -> None:
    small.target.CopyFrom(SUMMARY)
    shown, file = console()
    print_report(shown, small, version=None, row_id="", timings=False)
    for text in (file.getvalue(), page.render(small)):
        for part in (
            "The target in rows was reached: 400 rows from 900 seeds for 1,200,000 tokens, 3,000 per row.",
            "300 instructions without a row kept 2,100 attempts undrawn.",
            "would cost about 420,000 tokens for about 50 rows, which cost 150,000 tokens through new seeds: "
            "about 270,000 tokens saved.",
            "difficulty hard",
            "66.7%",
            "50.0%",
        ):
            assert part in text


def test_a_report_of_a_run_without_a_target_says_nothing_about_one(small: api.GetReportResponse) -> None:
    assert target.sentences(small.target) == []
    assert 'id="target"' not in page.render(small)


def test_the_recipe_names_the_target_and_the_command_repeats_it() -> None:
    run = pb.Run(target=pb.Target(rows=74_000, device_hours=8, devices=4, window=512))
    assert ("target", "74,000 rows or 8 device hours on 4 devices; window of 512 actions") in recipe.facts(run)
    assert "--rows 74000 --device-hours 8 --devices 4" in recipe.run_command(run)
