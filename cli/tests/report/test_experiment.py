"""An experiment's page, plot and JSON: every figure is there, and names are text."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.report import experiment as pages

HOSTILE = "a|b <script>alert(1)</script>\n# c](x) `d` *e* \u202e"


def found(*, names: tuple[str, ...] = ("base", "passes", "random"), rows: bool = False) -> api.GetExperimentResponse:
    response = api.GetExperimentResponse()
    status = response.experiment
    status.id, status.state = "0123456789abcdef" * 2, pb.RUN_STATE_SUCCEEDED
    config = status.config
    config.name = "mine"
    config.seeds.extend([0, 1, 2])
    config.models.add(model=pb.ModelChoice(model="nano", revision="r" * 20))
    measure = response.result.measures.add(benchmark="humaneval+", samples=1, problems=10, problems_total=164)
    for number, name in enumerate(names):
        arm = config.arms.add(name=name, model="nano", rows=100 * number if rows else 0)
        if number:
            arm.run.pipeline = "selfcodealign"
        values = [0.2 * number + 0.1 + 0.01 * seed for seed in range(3)]
        used = [0 if not number else (100 * number if rows else 127 + seed) for seed in range(3)]
        measure.scores.add(
            arm=name, seeds=range(3), pass_at_1=values, mean=sum(values) / 3, standard_error=0.0058, rows=used
        )
    measure.differences.add(
        better=names[1], than=names[0], seeds=range(3), by_seed=[0.2, 0.2, 0.25], mean=0.217, p_value=0.0002, test="t"
    )
    measure.differences[0].interval.CopyFrom(api.Interval(low=0.14, high=0.29))
    claim = pb.ExperimentClaim(statement="It helps.", better=names[1], than=names[0], source="Table 9")
    response.result.decisions.add(claim=claim, outcome="supported", sentence=f"Supported: {names[1]} is better.")
    response.result.notes.append("Two of them are few.")
    return response


def page(response: api.GetExperimentResponse) -> str:
    return pages.page(response, description="What it is.", command="codealign experiment mine", plot_file="mine.svg")


def test_the_page_has_every_figure_claim_and_note() -> None:
    text = page(found())
    assert text.startswith("# Experiment mine\n\nWhat it is.\n\nWritten by `codealign experiment mine`")
    odd = pages.page(found(), description="", command="codealign experiment a`\n\udcff", plot_file="")
    assert "Written by `codealign experiment a \\udcff`" in odd
    assert "## HumanEval+, greedy, 10 of 164 problems" in text
    assert "| passes | 31.0 | 0.6 | 127–129 | 30.0 | 31.0 | 32.0 |" in text
    assert "| base | 11.0 | 0.6 | – | 10.0 | 11.0 | 12.0 |" in text
    assert "| passes − base | +21.7 | +14.0 to +29.0 | \\< 0.001 | t | +20.0 | +20.0 | +25.0 |" in text
    assert "- It helps. (Table 9)\n  **Supported: passes is better.**" in text
    assert "![pass@1 by arm](mine.svg)" in text
    assert "- Two of them are few." in text


def test_names_and_messages_are_shown_as_they_are() -> None:
    response = found(names=("base", HOSTILE, "random"))
    response.experiment.config.name = HOSTILE
    response.result.notes.append(HOSTILE)
    text = page(response)
    assert "<script>" not in text
    assert "a\\|b \\<script\\>alert(1)\\</script\\> \\# c\\](x) \\`d\\` \\*e\\* ⟨U+202E⟩" in text
    assert all(line.count(" | ") in (6, 7) for line in text.splitlines() if line.startswith("| a"))
    drawn = ET.fromstring(pages.plot(response))
    shown = [each.text or "" for each in drawn.findall("{*}text")]
    assert any(each.startswith("a|b <script>") for each in shown)
    assert not drawn.findall(".//{*}script")


def test_the_plot_shows_every_arm_and_seed() -> None:
    drawn = ET.fromstring(pages.plot(found()))
    assert len(drawn.findall("{*}circle")) == 3 * 3 + 3
    assert {"base", "passes", "random"} <= {each.text for each in drawn.findall("{*}text")}


def test_the_plot_of_numbers_of_rows_is_a_curve_beside_the_base() -> None:
    response = found(names=("base", "100 rows", "200 rows", "300 rows"), rows=True)
    drawn = ET.fromstring(pages.plot(response))
    (line,) = drawn.findall("{*}polyline")
    across = [float(point.split(",")[0]) for point in line.attrib["points"].split()]
    assert across == sorted(across)
    assert len(across) == len(drawn.findall("{*}circle")) == 3
    assert "base" in {each.text for each in drawn.findall("{*}text")}


def test_the_plot_of_arms_that_differ_in_more_than_their_rows_names_each_of_them() -> None:
    names = ("base", "100 rows", "200 rows", "300 rows")
    another, shared = found(names=names, rows=True), found(names=names, rows=True)
    another.experiment.config.arms[2].run.selection.strategy = "failures-only"
    shared.experiment.config.arms[2].rows = 0  # it trains on as many rows as the smallest such arm
    for response in (another, shared):
        drawn = ET.fromstring(pages.plot(response))
        assert not drawn.findall("{*}polyline"), "a line would join what is not one curve"
        assert set(names) <= {each.text for each in drawn.findall("{*}text")}


def test_without_results_the_page_says_so_and_there_is_no_plot() -> None:
    response = api.GetExperimentResponse(experiment=found().experiment)
    assert "No cell has a result yet." in page(response)
    assert pages.plot(response) == ""


def test_the_json_has_the_contracts_names() -> None:
    read = json.loads(pages.as_json(found()))
    assert [round(each, 3) for each in read["result"]["measures"][0]["scores"][1]["pass_at_1"]] == [0.3, 0.31, 0.32]
    assert read["experiment"]["config"]["name"] == "mine"
    assert read["experiment"]["config"]["seeds"] == ["0", "1", "2"], "0 is a seed like any other"
    assert read["result"]["measures"][0]["temperature"] == 0


def test_the_summary_ends_with_why_it_is_not_whole() -> None:
    response = found()
    response.experiment.state, response.experiment.message = pb.RUN_STATE_FAILED, "1 cell failed"
    *_, sentence, last = pages.summary(response)
    assert (sentence, last) == ("Supported: passes is better.", "1 cell failed")
