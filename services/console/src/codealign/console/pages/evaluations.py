"""Evaluations: the list, and one with its intervals and the result of every problem."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.progress import state_name
from codealign.cli.records_view import field_texts
from codealign.cli.report import charts, comparing
from codealign.cli.report.scores import interval_of, pass_at
from codealign.cli.report.wording import Words, benchmark_title, percent
from codealign.console.pages.runs import tone
from codealign.console.rendering import gather, page
from codealign.console.texts import records_url

RESULTS = "evaluations"
"""Collection of the results."""


async def evaluations(request: Request) -> Response:
    """Show the evaluations, newest first."""
    gathered = gather(request)
    listed = await gathered.part(
        lambda reader: reader.call(reader.clients.coordinator.ListEvaluations, api.ListEvaluationsRequest())
    )
    found = list(listed.evaluations[:500]) if listed else []
    return page(
        request,
        "evaluations",
        gathered,
        section="evaluations",
        title="Evaluations",
        live=any(one.state == pb.RUN_STATE_RUNNING for one in found),
        evaluations=[(one, state_name(one.state), tone(one.state), _asked(one.settings)) for one in found],
    )


def _asked(settings: pb.EvaluationSettings) -> str:
    style = {"base": "plain completion", "tuned": "as an instruction"}.get(settings.prompt_style, settings.prompt_style)
    how = f"temperature {settings.temperature:g}" if settings.temperature else "greedy"
    samples = f"{settings.samples or 1} samples" if settings.samples > 1 else "1 sample"
    return ", ".join((", ".join(benchmark_title(name) for name in settings.benchmarks), style, samples, how))


async def evaluation(request: Request) -> Response:
    """Show an evaluation."""
    gathered, wanted = gather(request), request.path_params["evaluation"]
    found = await gathered.part(
        lambda reader: reader.call(
            reader.clients.coordinator.GetEvaluation, api.GetEvaluationRequest(evaluation=wanted)
        ),
        named=True,
    )
    status = found.evaluation if found else api.EvaluationStatus(id=wanted)
    results = list(found.results) if found else []
    return page(
        request,
        "evaluation",
        gathered,
        section="evaluations",
        title=f"Evaluation {wanted[:12]}",
        status=200 if found else 503,
        live=bool(found) and status.state == pb.RUN_STATE_RUNNING,
        evaluation=status,
        state=state_name(status.state) if found else "",
        tone=tone(status.state),
        chart=_chart(results),
        lines=comparing.evaluation_lines(results, Words(api.Pipeline())),
        problems_of=[(benchmark_title(one.benchmark), one, _problems(one)) for one in results],
        settings=_settings(status.settings),
    )


def _settings(settings: pb.EvaluationSettings) -> list[tuple[str, str]]:
    found = {"model": settings.model.model, "revision": settings.model.revision}
    found |= {name.replace("_", " "): text for name, text in field_texts(settings).items() if name != "model"}
    return [(name, text) for name, text in found.items() if text]


def _chart(results: list[api.Evaluation]) -> object:
    groups = []
    for one in results:
        value, interval = pass_at(one), interval_of(one)
        if value is not None and interval is not None:
            kind = "base" if one.prompt_style == "base" else "tuned"
            mark = charts.Mark(kind, 100 * value, 100 * interval.low, 100 * interval.high, percent(value))
            groups.append(charts.Group(benchmark_title(one.benchmark), (mark,)))
    if not groups:
        return ""
    return charts.forest(groups, unit="pass@1 (%)", signed=False, title="pass@1 by benchmark", name="levels")


def _problems(one: api.Evaluation) -> list[tuple[str, int, int, str, str]]:
    """Return each problem's id, passed and all samples, colour, and where its samples are listed."""
    return [
        (
            score.problem_id,
            score.passed,
            score.samples,
            "good" if score.passed == score.samples else "bad" if not score.passed else "calm",
            records_url(RESULTS, pb.KIND_EVALUATION_RESULT, stage=one.id, text=score.problem_id),
        )
        for score in one.scores
    ]
