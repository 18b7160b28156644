"""The rounds of a series in the report, on the terminal and on the page."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.report.page import render
from codealign.cli.report.rounds import round_lines, series_line
from codealign.cli.report.terminal import print_report


@pytest.fixture
def rounds(small: api.GetReportResponse) -> api.GetReportResponse:
    """The report of a run in a series whose third round has just begun."""
    series = small.run.series
    series.state, series.message = pb.RUN_STATE_RUNNING, "round 3 of 4: generating data"
    series.config.CopyFrom(pb.RoundSeries(number=4, generates="everything", train_from="base"))
    tuned = next(one for one in small.evaluations if one.prompt_style == "tuned")
    for number in (1, 2):
        data = pb.RoundData(version=f"v-{number}", rows=1200 * number, pass_rate=0.25, concepts=77)
        data.instructions.CopyFrom(pb.TextDiversity(distinct_1=0.3, distinct_2=0.7, similarity=0.0125))
        data.responses.CopyFrom(pb.TextDiversity(distinct_1=0.2, distinct_2=0.6, similarity=0.05))
        made = small.rounds.add(round=pb.Round(number=number, run=f"{number}" * 32, data=data))
        made.evaluations.add().CopyFrom(tuned)
        compared = made.comparisons.add()
        compared.CopyFrom(small.comparisons[0])
        if number == 2:
            compared.difference, compared.p_value = -0.125, 0.004
    small.rounds.add(round=pb.Round(number=3, run="3" * 32))
    series.rounds.extend(one.round for one in small.rounds)
    return small


def printed(report: api.GetReportResponse) -> str:
    file = io.StringIO()
    console = Console(file=file, width=300, color_system=None)
    print_report(console, report, version=None, row_id="", timings=False)
    return file.getvalue()


def test_every_round_is_a_line_with_its_measures_and_scores(rounds: api.GetReportResponse) -> None:
    first, second, third = round_lines(rounds)
    assert (first.run, first.version, first.rows, first.pass_rate, first.concepts) == (
        *("1" * 12, "v-1", "1,200", "25.0%", "77"),
    )
    assert (first.instructions, first.responses, first.similarity) == ("0.700", "0.600", "0.013, 0.050")
    assert first.score_text == "HumanEval+ 31.1% (24.5 to 38.6%) +3.0 (p = 0.44)"
    assert [one.is_worse for line in (first, second) for one in line.scores] == [False, True]
    assert (third.number, third.rows, third.pass_rate, third.scores) == (3, "", "", ())


def test_the_terminal_and_the_page_show_the_same_rounds(rounds: api.GetReportResponse) -> None:
    for text in (printed(rounds), render(rounds)):
        for part in ("3 of 4 rounds, running", "round 3 of 4: generating data", "1,200", "0.700", "−12.5 (p = 0.004)"):
            assert part in text, part
    assert "worse beyond noise" in render(rounds)


def test_a_run_without_a_series_has_no_rounds_in_its_report(small: api.GetReportResponse) -> None:
    assert "distinct-2" not in printed(small)
    assert "distinct-2" not in render(small)


def test_a_pipeline_that_executes_nothing_has_no_pass_rate(rounds: api.GetReportResponse) -> None:
    rounds.rounds[0].round.data.ClearField("pass_rate")
    assert round_lines(rounds)[0].pass_rate == ""


def test_hostile_texts_of_a_series_stay_text(rounds: api.GetReportResponse) -> None:
    rounds.run.series.message = "<script>alert(1)</script>\x1b[31m"
    rounds.rounds[0].round.data.version = rounds.rounds[0].evaluations[0].benchmark = "<img src=x>\u202e"
    page = render(rounds)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in printed(rounds)


def test_an_ended_series_says_so_in_one_line() -> None:
    series = api.SeriesStatus(state=pb.RUN_STATE_FAILED, message="stopped after round 2 of 3: it kept no rows")
    series.config.CopyFrom(pb.RoundSeries(number=3, generates="instructions", train_from="previous"))
    series.rounds.add()
    series.rounds.add()
    assert series_line(series) == (
        "2 of 3 rounds, failed; the tuned model generates instructions, training starts from the previous model: "
        "stopped after round 2 of 3: it kept no rows"
    )
