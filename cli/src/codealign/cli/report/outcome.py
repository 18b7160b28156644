"""A run in one sentence, and caveats for reading its report."""

from __future__ import annotations

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.progress import state_name
from codealign.cli.report.scores import FEW_PROBLEMS, brief_meaning, levels, matches, ordered, pass_at
from codealign.cli.report.wording import benchmark_title, percent
from codealign.cli.terminal import count

_FEW_ROWS = 100
_BENCHMARKS_NAMED = 2


def candidates(report: api.GetReportResponse) -> str:
    """Return the stage whose items rows are chosen from, the last writing stage, or "" if unknown."""
    by_name = {stage.name: stage for stage in report.pipeline.stages}
    for stage in report.pipeline.stages:
        parent = by_name.get(stage.parent)
        chooses = stage.role in (api.STAGE_ROLE_EXECUTION, api.STAGE_ROLE_SELECTION)
        if chooses and parent is not None and parent.role == api.STAGE_ROLE_WRITING:
            return parent.name
    return report.run.config.stages[-1].stage if report.run.config.stages else ""


def executes(report: api.GetReportResponse) -> bool:
    """Return whether the run's pipeline executes its answers, as far as is known."""
    roles = {stage.role for stage in report.pipeline.stages}
    return not roles or api.STAGE_ROLE_EXECUTION in roles or bool(report.verdicts)


def answers(report: api.GetReportResponse) -> tuple[int, int]:
    """Return the number of answers that passed their tests, and of all answers, unreadable ones included."""
    wanted = candidates(report)
    written = next((stage.items for stage in report.stages if stage.stage == wanted), 0)
    return report.verdicts.get("PASSED", 0), max(written, sum(report.verdicts.values()))


_NOTHING = {
    pb.RUN_STATE_SUCCEEDED: "No answer was written",
    pb.RUN_STATE_FAILED: "The run failed before it wrote an answer",
    pb.RUN_STATE_CANCELLED: "The run was cancelled before it wrote an answer",
}
"""The sentence for a run that ended without an answer. Its stages may have dropped every item."""


def headline(report: api.GetReportResponse) -> str:
    """Return the run's result in one sentence that claims no more than the numbers show.

    The benchmark that it names follows a fixed order, independent of the results.
    """
    passed, written = answers(report)
    parts = []
    if written and not executes(report):
        parts.append(f"{count(written, 'answer')} written, none executed")
    elif written:
        parts.append(f"{passed:,} of {count(written, 'answer')} passed {'its' if written == 1 else 'their'} tests")
    published = bool(report.run.version)
    if written or report.rows:
        parts.append(f"{count(report.rows, 'row')} {'published' if published else 'selected, none published yet'}")
    parts += _scores(report)
    state = report.run.state
    text = "; ".join(parts) or _NOTHING.get(state, "Nothing has been done yet")
    if state not in (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_UNSPECIFIED) and parts:
        before = {pb.RUN_STATE_RUNNING: "Still running, so far", pb.RUN_STATE_FAILED: "The run failed after this"}
        text = f"{before.get(state, state_name(state).capitalize())}: {text}"
    return f"{text}."


def _scores(report: api.GetReportResponse) -> list[str]:
    found = matches(report)
    if found:
        pairs = found[-1].pairs  # the newest checkpoint's
        texts = [f"pass@1 on {pair.title} {levels(pair)}, {brief_meaning(pair)}" for pair in pairs]
        if len(pairs) <= _BENCHMARKS_NAMED:
            return texts
        beyond = sum(pair.beyond_noise for pair in pairs)
        verb = "shows" if beyond == 1 else "show"
        return [texts[0], f"{beyond or 'none'} of {len(pairs)} benchmarks {verb} a difference beyond noise"]
    texts = []
    for evaluation in ordered(report.evaluations, report.run.config.model.revision)[:1]:
        value = pass_at(evaluation)
        if value is not None:
            name = evaluation.model or "the model"
            texts.append(f"pass@1 of {name} on {benchmark_title(evaluation.benchmark)} {percent(value)}, not compared")
    return texts


def cautions(report: api.GetReportResponse) -> list[str]:
    """Return what a reader should know before drawing conclusions: the run's notes, and small sample sizes."""
    said = list(report.run.notes)
    if report.rows and not executes(report):
        said.append("This pipeline does not execute answers: no program has tested these rows.")
    if report.run.version and report.rows < _FEW_ROWS:
        there = f"{count(report.rows, 'row')} " + ("shows" if report.rows == 1 else "show")
        said.append(f"{there} that the system works end to end; this is too little data to measure the method.")
    for benchmark in sorted({one.benchmark for one in report.evaluations}):
        done = [one.problems_done for one in report.evaluations if one.benchmark == benchmark]
        if 0 < min(done) < FEW_PROBLEMS:
            said.append(
                f"{benchmark_title(benchmark)} was evaluated on {count(min(done), 'problem')} only: intervals are wide."
            )
    pairs = [pair for match in matches(report) for pair in match.pairs]
    if any(pair.base.prompt_style != pair.tuned.prompt_style for pair in pairs):
        said.append(
            "The base model completed each problem's text, while the tuned model received it as an instruction: part "
            "of a difference may come from the prompt style."
        )
    for one in report.evaluations:
        if one.undecided:
            said.append(
                f"{count(one.undecided, 'sample')} of {one.model or 'a model'} on {benchmark_title(one.benchmark)} "
                f"{'has' if one.undecided == 1 else 'have'} no verdict yet and {'is' if one.undecided == 1 else 'are'} "
                "not counted."
            )
    return said
