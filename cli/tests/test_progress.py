"""Display of a run's progress."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import progress
from codealign.cli.launcher import Event
from codealign.cli.progress import (
    ProgressDisplay,
    headline,
    message_words,
    plain_line,
    progress_table,
    run_state,
    top_reasons,
)
from codealign.cli.report.terminal import print_report
from codealign.cli.terminal import StartDisplay, count, duration, printable, size


def console(width: int = 160, *, terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, color_system=None, force_terminal=terminal, soft_wrap=True), file


def status(state: pb.RunState.ValueType = pb.RUN_STATE_RUNNING, done: int = 40) -> api.RunStatus:
    reasons = {"no-tests-section": 3, "cut-off": 7, "empty": 1, "no-code-block": 2}
    return api.RunStatus(
        id="ab" * 16,
        config=pb.Run(name="first"),
        state=state,
        notes=["no benchmark files are set"],
        stages=[
            api.StageProgress(stage="concepts", expected=100, done=100, kept=100),
            api.StageProgress(
                stage="responses",
                expected=100,
                done=done,
                kept=done - 13,
                dropped=13,
                reasons=reasons,
                rate=1.25,
                seconds_left=95,
                in_flight=8,
                retries=2,
            ),
            api.StageProgress(stage="selection"),
        ],
    )


def test_the_commonest_reasons_come_first_and_the_others_are_counted() -> None:
    assert top_reasons(status().stages[1]) == "cut-off 7, no-tests-section 3, no-code-block 2, 1 others"
    assert top_reasons(status().stages[1], 4).endswith("empty 1")
    assert top_reasons(status().stages[0]) == ""


def test_the_table_has_every_stage_with_its_numbers() -> None:
    target, file = console()
    target.print(progress_table(status()))
    row = next(line for line in file.getvalue().splitlines() if line.startswith("responses"))
    for part in ("40/100", "27", "13", "1.2/s", "1 min 35 s", "8", "2", "cut-off 7"):
        assert part in row, part


def test_without_a_terminal_a_status_is_one_line() -> None:
    assert plain_line(status()) == (
        "running: concepts 100/100 kept 100 | responses 40/100 kept 27 dropped 13 (cut-off 7, no-tests-section 3, "
        "3 others) in flight 8 retries 2 left 1 min 35 s"
    )
    assert plain_line(api.RunStatus(state=pb.RUN_STATE_RUNNING)) == "running: nothing done yet"


@pytest.mark.parametrize(
    ("state", "wanted", "told"),
    [
        (pb.RUN_STATE_RUNNING, pb.RUN_STATE_RUNNING, "running"),
        (pb.RUN_STATE_RUNNING, pb.RUN_STATE_UNSPECIFIED, "running"),
        (pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, "pausing"),
        (pb.RUN_STATE_RUNNING, pb.RUN_STATE_CANCELLED, "cancelling"),
        (pb.RUN_STATE_PAUSED, pb.RUN_STATE_RUNNING, "starting"),
        (pb.RUN_STATE_PAUSED, pb.RUN_STATE_PAUSED, "paused"),
        (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_PAUSED, "succeeded"),
        (42, pb.RUN_STATE_RUNNING, "starting"),
        (42, 43, "run state 42"),
    ],
)
def test_what_is_wanted_and_not_so_yet_is_said(
    state: pb.RunState.ValueType, wanted: pb.RunState.ValueType, told: str
) -> None:
    assert run_state(api.RunStatus(state=state, wanted=wanted)) == told


def test_a_state_is_not_said_twice() -> None:
    pausing = api.RunStatus(
        id="ab" * 16,
        state=pb.RUN_STATE_RUNNING,
        wanted=pb.RUN_STATE_PAUSED,
        message="pausing: what is in flight is finished",
    )
    assert headline(pausing, 1.0).plain == "run abababababab: pausing, 1.0 s: what is in flight is finished"
    cancelling = api.RunStatus(state=pb.RUN_STATE_RUNNING, wanted=pb.RUN_STATE_CANCELLED, message="cancelling")
    assert message_words(cancelling) == ""


def test_what_a_run_waits_for_is_said_at_once() -> None:
    target, file = console()
    away = "the dataset service, since 14:03:10 UTC: connection refused"
    with ProgressDisplay(target) as display:
        display.update(status())
        waiting = status()
        waiting.waiting_for = away
        display.update(waiting)
        display.update(waiting)
        display.update(status(done=41))
    lines = file.getvalue().splitlines()[1:]
    assert [away in line for line in lines] == [False, True, False]
    assert f"running: waiting for {away}: " in lines[1]
    assert f"waiting for {away}" in headline(waiting, 1.0).plain


def test_without_a_terminal_lines_come_now_and_then_and_when_the_state_changes() -> None:
    target, file = console()
    with ProgressDisplay(target) as display:
        for done in (20, 21, 22):
            display.update(status(done=done))
        display.update(status(pb.RUN_STATE_SUCCEEDED, done=100))
    lines = file.getvalue().splitlines()
    assert lines[0] == "note: no benchmark files are set"
    assert len(lines) == 3
    assert "running: " in lines[1]
    assert "responses 20/100" in lines[1]
    assert "succeeded: " in lines[2]


def test_after_a_while_the_next_line_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    target, file = console()
    with ProgressDisplay(target) as display:
        for done in (20, 21, 21):
            display.update(status(done=done))
    assert len(file.getvalue().splitlines()) == 3


def test_without_a_terminal_the_funnel_is_told_once_at_the_runs_end_and_then_what_follows_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    target, file = console()
    with ProgressDisplay(target) as display:
        display.update(status())
        for done in (None, 10, 28, 28, None):  # None: between two steps
            now = status(pb.RUN_STATE_SUCCEEDED, done=100 + (done or 0))
            now.loop.state = pb.RUN_STATE_RUNNING
            if done is not None:
                now.loop.steps.add(name="train", state=pb.RUN_STATE_RUNNING, done=done, total=164)
            display.update(now)
        now.waiting_for = "the dataset service"
        display.update(now)
        now.waiting_for = ""
        now.loop.state, now.loop.message = pb.RUN_STATE_FAILED, "out of memory"
        display.update(now)
    told = [line.partition("] ")[2] for line in file.getvalue().splitlines()[1:]]
    assert [line.split(":")[0] for line in told[:2]] == ["running", "succeeded"]
    assert told[2:] == [
        "then train 10/164",
        "then train 28/164",
        "waiting for the dataset service",
        "then failed: out of memory",
    ]


def test_without_a_terminal_a_stage_or_step_that_begins_has_a_line_at_once() -> None:
    target, file = console()
    with ProgressDisplay(target) as display:
        for done in (0, 0, 1, 2):
            now = status(done=done)
            now.stages[1].in_flight = 0
            display.update(now)
        for name in ("train", "train", "evaluate the tuned model (1 of 2)", "evaluate the tuned model (2 of 2)"):
            now = status(pb.RUN_STATE_SUCCEEDED, done=100)
            now.loop.state = pb.RUN_STATE_RUNNING
            now.loop.steps.add(name=name, state=pb.RUN_STATE_RUNNING, done=1, total=9)
            display.update(now)
    told = [line.partition("] ")[2] for line in file.getvalue().splitlines()[1:]]
    assert ["responses" in line for line in told[:2]] == [False, True]
    assert [line.split(" ")[0] for line in told[2:]] == ["succeeded:", "then", "then"]
    assert told[4] == "then evaluate the tuned model (1 of 2) 1/9"


def test_what_each_part_took_is_told_once_all_of_it_has_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("codealign.cli.progress.time.monotonic", lambda: float(next(clock)))
    target, file = console()
    with ProgressDisplay(target) as display:
        display.update(status())
        display.update(status())
        for name, state in (
            ("evaluate the base model (1 of 2)", pb.RUN_STATE_RUNNING),
            ("evaluate the base model (2 of 2)", pb.RUN_STATE_RUNNING),
            ("train", pb.RUN_STATE_RUNNING),
            ("train", pb.RUN_STATE_SUCCEEDED),
        ):
            now = status(pb.RUN_STATE_SUCCEEDED)
            now.loop.state = state
            now.loop.steps.add(name=name, state=state)
            display.update(now)
    assert file.getvalue().splitlines()[-1] == "time: data 20 s, evaluate the base model 20 s, train 10 s"


def test_on_a_terminal_the_table_moves() -> None:
    target, file = console(terminal=True)
    with ProgressDisplay(target) as display:
        display.update(status())
    assert "run abababababab (first): running" in file.getvalue()


def report() -> api.GetReportResponse:
    return api.GetReportResponse(
        run=status(pb.RUN_STATE_SUCCEEDED),
        stages=[
            api.StageReport(stage="seeds", items=100, kept=60, reasons={"seed.no-return": 30, "seed.too-long": 10}),
            api.StageReport(
                stage="responses", items=90, kept=80, prompt_tokens=12345, generated_tokens=678, wall_seconds=12.5
            ),
        ],
        verdicts={"PASSED": 30, "FAILED_ASSERTION": 50},
        rows=25,
    )


def test_the_report_has_the_funnel_the_verdicts_the_cost_and_what_comes_next() -> None:
    target, file = console()
    version = ds.Version(name="v-0123456789abcdef", url="file:///data/v", rows=25)
    print_report(target, report(), version=version, row_id="cd" * 16, timings=True)
    text = file.getvalue()
    for part in (
        "seed.no-return 30",
        "seed.too-long 10",
        "verdicts: FAILED_ASSERTION 50, PASSED 30",
        "12,345",
        "12 s",
        "25 rows published as v-0123456789abcdef",
        "file:///data/v",
        "codealign data lineage cdcdcdcdcdcd",
        "codealign data export v-0123456789abcdef",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("cached", "unknown", "words"),
    [(2345, 0, "2,345"), (0, 12345, "unknown"), (2000, 2345, "2,000 (of 2,345 unknown)")],
)
def test_what_engines_do_not_say_about_their_cache_is_not_counted_as_zero(
    cached: int, unknown: int, words: str
) -> None:
    target, file = console()
    again = report()
    again.stages[1].cached_prompt_tokens, again.stages[1].unknown_prompt_tokens = cached, unknown
    print_report(target, again, version=None, row_id="", timings=True)
    (line,) = [line for line in file.getvalue().splitlines() if "12,345" in line]
    assert line.split("12,345", 1)[1].rsplit("678", 1)[0].strip() == words


def test_without_timings_the_report_is_the_same_for_the_same_data() -> None:
    texts = []
    for seconds in (1.0, 2.0):
        target, file = console()
        again = report()
        again.stages[1].wall_seconds = seconds
        print_report(target, again, version=None, row_id="", timings=False)
        texts.append(file.getvalue())
    assert texts[0] == texts[1]
    assert "nothing published" in texts[0]


def test_starting_services_say_what_they_do() -> None:
    target, file = console()
    display = StartDisplay(target)
    display(Event("inference", "starting", "loading model", 0.1))
    display(Event("inference", "ended", "inference ended by signal 9; restarting in 0.5 s"))
    assert file.getvalue() == "inference ended by signal 9; restarting in 0.5 s\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (52.4, "52 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_counts_and_control_characters() -> None:
    assert [size(n) for n in (10, 2048, 5 * 2**20, 3 * 2**30)] == ["10 B", "2.0 KiB", "5.0 MiB", "3.0 GiB"]
    assert [count(1, "row"), count(2000, "row"), count(0, "copy", "copies")] == ["1 row", "2,000 rows", "0 copies"]
    assert printable("a\x1b[31mb\r\nc\x00\u202e") == "a�[31mb\nc��"
