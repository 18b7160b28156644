"""The page as markup: complete, inert, reproducible."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.failures import Failure
from codealign.cli.report.page import render, write
from codealign.cli.report.wording import Words, visible
from codealign.coordinator import pipelines

BLOCKS = {"dt", "dd", "th", "td", "li", "p"}
VOID = {"meta", "br", "hr", "img", "link", "input"}
REFERRING = {"href", "src", "srcset", "action", "data", "poster", "background", "xlink:href", "formaction", "ping"}
REPORTS = ("small", "large", "empty", "long_names", "hostile")
HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)",
    "</style><script>alert(4)</script>",
    "</title></pre></code><iframe src=//evil.example>",
    "{{ 7 * 7 }}{% raw %}",
    "a␛[31mred␀⟨U+202E⟩gnp.exe⟨U+200B⟩␍",
    "&lt;b&gt; &amp; &#60;",
)


class Parsed(HTMLParser):
    """A page's elements and text. Elements that are not closed properly are an error."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.classes: set[str] = set()
        self.ids: list[str] = []
        self.style = ""
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def words(self) -> str:
        """The text on one line."""
        return " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in BLOCKS:
            self._text.append(" ")
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "class":
                self.classes.update((value or "").split())
            elif name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self._text.append(data)


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> api.GetReportResponse:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, api.GetReportResponse)
    return found


def test_the_page_needs_nothing_and_runs_nothing(report: api.GetReportResponse) -> None:
    parsed = Parsed(render(report))
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "a", "image", "use", "form"}
    for tag, name, value in parsed.attributes:
        assert name not in REFERRING, (tag, name, value)
        assert not name.startswith("on"), (tag, name, value)
        assert name != "style", (tag, value)
        assert "url(" not in value or name in ("fill", "aria-label"), (tag, name, value)
    assert set(re.findall(r"url\([^)]*\)|@import|https?:", parsed.style)) == {"url(#hatch)"}
    assert len(parsed.ids) == len(set(parsed.ids))
    referred = {part for _, name, value in parsed.attributes if name == "aria-labelledby" for part in value.split()}
    assert referred <= set(parsed.ids)


def test_its_policy_forbids_everything_but_its_own_style_sheet(small: api.GetReportResponse) -> None:
    parsed = Parsed(render(small))
    policy = next(value for tag, name, value in parsed.attributes if tag == "meta" and "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(parsed.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_the_same_report_gives_the_same_bytes(report: api.GetReportResponse) -> None:
    again = api.GetReportResponse.FromString(report.SerializeToString())
    for stage in again.stages:
        reasons = dict(reversed(list(stage.reasons.items())))
        stage.reasons.clear()
        stage.reasons.update(reasons)
    assert render(again) == render(report)


def test_the_share_of_cached_tokens_is_one_of_those_of_which_it_is_known(small: api.GetReportResponse) -> None:
    concepts, *others = [stage for stage in small.stages if stage.prompt_tokens]
    for stage in others:
        stage.cached_prompt_tokens, stage.unknown_prompt_tokens = 0, stage.prompt_tokens
    words = Parsed(render(small)).words
    unknown = sum(stage.prompt_tokens for stage in others)
    share = f"{concepts.cached_prompt_tokens / concepts.prompt_tokens:.1%}"
    assert f"6,165 {share}" in words
    assert f"{others[0].prompt_tokens:,} unknown" in words
    assert f"6,165 (of {unknown:,} unknown) {share}" in words


@pytest.mark.parametrize("name", ["small", "large"])
def test_every_number_of_the_report_is_on_the_page(name: str, request: pytest.FixtureRequest) -> None:
    report: api.GetReportResponse = request.getfixturevalue(name)
    text = Parsed(render(report)).words
    numbers = [report.rows, *report.verdicts.values()]
    for stage in report.stages:
        numbers += [stage.items, stage.kept, stage.items - stage.kept, *stage.reasons.values()]
        numbers += [stage.prompt_tokens, stage.cached_prompt_tokens, stage.generated_tokens]
        assert all(reason in text for reason in stage.reasons)
    for record in report.checkpoints:
        made = record.checkpoint
        numbers += [made.rows, made.truncated_rows, made.steps, made.trained_tokens]
        for expected in (f"{made.losses[0].loss:.3f} → {made.losses[-1].loss:.3f}", made.setup, made.revision):
            assert expected in text
    for evaluation in report.evaluations:
        numbers += [evaluation.problems_done, evaluation.max_tokens, *evaluation.verdicts.values()]
        interval = evaluation.intervals[1]
        assert f"{evaluation.pass_at_k[1]:.1%}" in text
        assert f"{interval.low * 100:.1f} to {interval.high:.1%}" in text
    for comparison in report.comparisons:
        numbers += [comparison.problems, comparison.base_better, comparison.tuned_better]
        assert f"{abs(comparison.difference) * 100:.1f}" in text
        assert comparison.test in text
        if comparison.p_value >= 0.001:
            assert re.search(rf"p = {comparison.p_value:.2f}|p = {comparison.p_value:.3f}", text)
    for number in numbers:
        assert re.search(rf"(?<![\d,.]){number:,}(?!\d|,\d)", text), number


def test_the_steps_that_follow_the_run_are_shown_where_there_are_any(small: api.GetReportResponse) -> None:
    small.run.ClearField("loop")
    assert "After the data" not in Parsed(render(small)).words
    small.run.loop.state, small.run.loop.message = pb.RUN_STATE_FAILED, "train: out of memory"
    small.run.loop.steps.add(
        name="evaluate the base model", state=pb.RUN_STATE_SUCCEEDED, done=164, total=164, message="pass@1 30%"
    )
    small.run.loop.steps.add(name="train", state=pb.RUN_STATE_FAILED, message="out of memory", done=3, total=10)
    small.run.loop.steps.add(name="evaluate the tuned model")
    text = Parsed(render(small)).words
    section = text[text.index("After the data") : text.index("Checkpoint")]
    for part in (
        "train: out of memory",
        "evaluate the base model succeeded 164/164 pass@1 30%",
        "train failed 3/10 out of memory",
        "evaluate the tuned model not started",
    ):
        assert part in section, part


def test_a_row_is_followed_from_its_seeds_line_to_its_decision(small: api.GetReportResponse) -> None:
    text = Parsed(render(small)).words
    story = text[text.index("One row from seed to example") : text.index("Tokens and time")]
    steps = [
        "hmac/digests.py:41",
        "def compare_digest_lengths",
        "three-way comparison",
        "requested: easy, function, Python",
        "Write a function compare(a: int, b: int) -> int that",
        "attempt 0",
        "an assertion failed FAILED_ASSERTION",
        "attempt 1",
        "passed its tests PASSED",
        "if not isinstance(a, int)",
        'assert outcome == "refused"',
        "kept by selection.chosen: attempt 1 is the lowest",
        small.trail[-1].id,
        "Your code should pass these tests",
    ]
    place = 0
    for step in steps:
        place = story.index(step, place)


def test_hostile_text_stays_text(hostile: api.GetReportResponse, small: api.GetReportResponse) -> None:
    parsed = Parsed(render(hostile))
    kind = Parsed(render(small))
    known = {
        "kept",
        "dropped",
        "good",
        "bad",
        "code",
        "wrapped",
        "keyword",
        "builtin",
        "string",
        "comment",
        "whole",
        "message",
    }
    for text in HOSTILE_TEXTS:
        assert text in parsed.words, text
    assert parsed.tags <= kind.tags
    assert parsed.classes <= kind.classes | known
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u200b]", render(hostile))
    assert "49" not in parsed.words[: parsed.words.index("From seeds to rows")], "a template in the data was filled in"


def test_what_is_not_there_is_said_in_a_sentence(empty: api.GetReportResponse) -> None:
    text = Parsed(render(empty)).words
    for sentence in (
        "Nothing has been done yet.",
        "No stage has finished an item yet.",
        "No answer has been executed yet.",
        "No row has been published yet.",
        "No stage has taken any time or tokens yet.",
        "No model has been trained on these rows yet.",
        "No model has been evaluated yet.",
    ):
        assert sentence in text


def test_a_message_with_nothing_in_it_is_a_page_too() -> None:
    assert "Nothing has been done yet." in Parsed(render(api.GetReportResponse())).words


@pytest.mark.parametrize(
    ("trained", "sentence"),
    [
        (False, "Nothing to compare: no model has been trained on these rows yet."),
        (True, "the base and tuned models were not evaluated on the same problems with the same settings."),
    ],
)
def test_evaluations_without_a_comparison_are_shown(small: api.GetReportResponse, trained: bool, sentence: str) -> None:
    small.ClearField("comparisons")
    if not trained:
        small.ClearField("checkpoints")
    page = render(small)
    assert sentence in Parsed(page).words
    assert '<details class="evaluations" open>' in page


def test_every_verdict_has_words() -> None:
    names = {value.name.removeprefix("VERDICT_") for value in sandbox.Verdict.DESCRIPTOR.values}
    words = Words(pipelines.describe(pipelines.get("selfcodealign")))
    assert all(words.meaning(name) for name in names - {"UNSPECIFIED"})


def test_characters_that_cannot_be_seen_are_shown() -> None:
    assert visible("a\x00\x1b\x7f\x85\u202e\u200b\U000e0041b\tc\r\nd\re") == (
        "a␀␛␡⟨U+0085⟩⟨U+202E⟩⟨U+200B⟩⟨U+E0041⟩b\tc\nd␍e"
    )
    assert visible(visible("\x1b")) == "␛"


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb" or "#rgb" by WCAG 2.2."""
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_and_marks_have_enough_contrast_in_every_scheme(empty: api.GetReportResponse) -> None:
    style = Parsed(render(empty)).style
    schemes = [dict(re.findall(r"--(\w+): (#\w+);", block)) for block in re.findall(r":root \{([^}]*)\}", style)]
    assert len(schemes) == 3  # light, dark, print
    for colours in schemes:
        for text in ("ink", "soft", "kept", "bad", "dropped"):
            for ground in ("paper", "faint"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground, colours)
        assert contrast(colours["kept"], colours["dropped"]) >= 1  # distinguished by hatching, not by colour
        assert contrast(colours["base"], colours["paper"]) >= 3


def test_the_page_is_written_whole_or_not_at_all(small: api.GetReportResponse, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "report.html"
    assert write(small, file) == file
    assert file.read_bytes() == render(small).encode()
    assert [path.name for path in file.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="cannot write the report to"):
        write(small, tmp_path / "file" / "report.html")


def test_a_directory_is_refused_and_a_pipe_is_written_to(
    small: api.GetReportResponse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (".", str(tmp_path)):
        with pytest.raises(Failure, match="it is a directory, name a file"):
            write(small, Path(given))
    assert not list(tmp_path.parent.glob(".*.partial"))
    os.mkfifo("pipe")
    reading = os.open("pipe", os.O_RDWR | os.O_NONBLOCK)
    written = threading.Thread(target=write, args=(small, Path("pipe")))
    written.start()
    found, wanted = b"", render(small).encode()
    while len(found) < len(wanted):
        with contextlib.suppress(BlockingIOError):
            found += os.read(reading, 65536)
    written.join()
    os.close(reading)
    assert found == wanted
    assert Path("pipe").is_fifo()


def test_models_of_stages_are_named_where_they_differ(small: api.GetReportResponse) -> None:
    small.run.config.stages[2].model.CopyFrom(pb.ModelChoice(model="a-teacher", revision="7e" * 32))
    text = Parsed(render(small)).words
    assert "other stages qwen2.5-coder-1.5b" in text
    assert "responses a-teacher" in text


def other(report: api.GetReportResponse) -> api.GetReportResponse:
    """The report of a run whose pipeline derives instructions from instructions and does not execute answers."""
    stages = report.run.config.stages
    stages[0].stage, stages[1].stage, stages[2].stage = "tasks", "evolved", "answers"
    names = {"concepts": "tasks", "instructions": "evolved", "responses": "answers"}
    for stage in [*report.pipeline.stages]:
        stage.name = names.get(stage.name, stage.name)
        stage.parent = names.get(stage.parent, stage.parent)
        if stage.name == "execution":
            report.pipeline.stages.remove(stage)
    for told in [*report.stages]:
        told.stage = names.get(told.stage, told.stage)
        if told.stage == "execution":
            report.stages.remove(told)
    report.verdicts.clear()
    concepts = next(record for record in report.trail if record.kind == pb.KIND_CONCEPT_SET)
    concepts.kind = pb.KIND_INSTRUCTION
    concepts.instruction.text = "Write something simple."
    row = report.trail[-1].example
    for step in row.lineage:
        step.stage = names.get(step.stage, step.stage)
    row.verdict_id = ""
    for record in [record for record in report.trail if record.kind == pb.KIND_VERDICT]:
        report.trail.remove(record)
    return report


def test_another_pipelines_run_is_told_by_its_own_stages(small: api.GetReportResponse) -> None:
    report = other(small)
    text = Parsed(render(report)).words
    assert "20 answers written, none executed; 2 rows published" in text
    assert "This pipeline does not execute answers: no program has tested its rows." in text
    assert "Instruction (Title of concepts)" in text
    assert text.index("Write something simple.") < text.index("Write a function compare(a: int, b: int)")
    assert "setting tasks evolved answers" in text


@pytest.mark.parametrize("name", ["small", "hostile"])
def test_a_run_of_a_pipeline_that_nobody_knows_is_shown(name: str, request: pytest.FixtureRequest) -> None:
    report: api.GetReportResponse = request.getfixturevalue(name)
    report.ClearField("pipeline")
    for record in report.trail:
        if record.kind == pb.KIND_EXAMPLE:
            record.example.ClearField("lineage")
    report.trail.insert(2, pb.Record(id="ab" * 16, kind=99))  # type: ignore[arg-type]  # an open enumeration
    text = Parsed(render(report)).words
    assert "(unknown kind of record)" in text
    assert "Record of kind 99" in text
    assert "attempt 1" in text


def test_a_draw_that_could_not_be_read_is_told_with_what_the_model_wrote(small: api.GetReportResponse) -> None:
    instruction = next(record for record in small.trail if record.kind == pb.KIND_INSTRUCTION)
    prefix = next(record for record in small.trail_references if record.kind == pb.KIND_PROMPT_PREFIX)
    written = pb.Record(
        id="ac" * 16,
        kind=pb.KIND_COMPLETION,
        parents=[prefix.id],
        completion=pb.Completion(text="and so on and on", finish_reason="length"),
    )
    rejected = pb.Rejection(rejected_kind=pb.KIND_RESPONSE, reason="cut-off", detail="at 640 tokens")
    small.trail.append(
        pb.Record(id="ad" * 16, kind=pb.KIND_REJECTION, parents=[instruction.id, written.id], rejection=rejected)
    )
    small.trail_references.append(written)
    text = Parsed(render(small)).words
    for part in ("reached the token limit before its end cut-off at 640 tokens", "and so on and on", "ended by length"):
        assert part in text, part


def test_what_a_run_waits_for_is_on_the_page(empty: api.GetReportResponse) -> None:
    empty.run.waiting_for = "the dataset service, since 14:03:10 UTC"
    assert "waiting for the dataset service, since 14:03:10 UTC" in Parsed(render(empty)).words
