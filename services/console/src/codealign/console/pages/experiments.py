"""Experiments: the list, and one with its claims, results and cells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.progress import message_words, run_state, state_name, waiting_words
from codealign.cli.report import experiment as report
from codealign.cli.report.wording import benchmark_title, short
from codealign.cli.terminal import count
from codealign.console.pages.runs import tone
from codealign.console.reading import Gathering, first
from codealign.console.rendering import gather, page

MOST = 500
"""Experiments in the list."""
MOST_CELLS = 500
LIVE_SECONDS = 10
"""A live page is read again after so long: its results take the coordinator a call to the store for every cell."""
_OUTCOMES = {"supported": "good", "contradicted": "bad"}


@dataclass(frozen=True)
class ExperimentLine:
    """An experiment in the list."""

    status: api.ExperimentStatus
    state: str
    tone: str
    size: str
    message: str


@dataclass(frozen=True)
class CellLine:
    """An arm of one seed."""

    cell: api.ExperimentCell
    state: str
    tone: str
    message: str
    evaluations: tuple[tuple[str, str], ...]
    """Words and id of each evaluation; the id is "" as long as it has not been requested."""


@dataclass(frozen=True)
class MeasureView:
    """Results on one benchmark: the first line of a table has its headings."""

    title: str
    scores: list[list[str]]
    differences: list[list[str]]


async def experiments(request: Request) -> Response:
    """Show the experiments, newest first."""
    gathered = gather(request)
    listed = await gathered.part(
        lambda reader: reader.call(reader.clients.coordinator.ListExperiments, api.ListExperimentsRequest())
    )
    known: Sequence[pb.Record] = ()
    if listed is None:  # as for runs: the records say less, but they are there
        known = (
            await gathered.part(lambda reader: first(reader.scan(ds.ScanRequest(kind=pb.KIND_EXPERIMENT)), MOST)) or ()
        )
    found = listed.experiments[:MOST] if listed else ()
    return page(
        request,
        "experiments",
        gathered,
        section="experiments",
        title="Experiments",
        live=any(one.state == pb.RUN_STATE_RUNNING for one in found),
        experiments=[_line(one) for one in found],
        known=known,
        hidden=len(listed.experiments) - len(found) if listed else 0,
    )


def _line(status: api.ExperimentStatus) -> ExperimentLine:
    message = waiting_words(status) or message_words(status)
    return ExperimentLine(status, run_state(status), tone(status.state), _size(status.config), message)


def _size(config: pb.Experiment) -> str:
    return f"{count(len(config.arms), 'arm')}, {count(len(config.seeds), 'seed')}"


async def experiment(request: Request) -> Response:
    """Show an experiment. If its results take too long, what the list says about it is shown."""
    gathered, name = gather(request), request.path_params["experiment"]
    found, evaluations = await asyncio.gather(
        gathered.part(
            lambda reader: reader.call(
                reader.clients.coordinator.GetExperiment, api.GetExperimentRequest(experiment=name)
            ),
            named=True,
        ),
        gathered.part(
            lambda reader: reader.call(reader.clients.coordinator.ListEvaluations, api.ListEvaluationsRequest())
        ),
    )
    whole = found is not None
    summary = found.experiment if found else await _summary(gathered, name)
    found = found or api.GetExperimentResponse(experiment=summary or api.ExperimentStatus(id=name))
    status, config = found.experiment, found.experiment.config
    asked = {one.id for one in evaluations.evaluations} if evaluations else None
    return page(
        request,
        "experiment",
        gathered,
        section="experiments",
        title=config.name or f"experiment {short(status.id)}",
        status=200 if summary else 503,
        live=status.state == pb.RUN_STATE_RUNNING,
        seconds=LIVE_SECONDS,
        experiment=status,
        known=summary is not None,
        whole=whole,
        state=run_state(status) if summary else "",
        tone=tone(status.state),
        message=waiting_words(status) or message_words(status),
        size=_size(config),
        models=", ".join(f"{one.model.model} {short(one.model.revision)}".strip() for one in config.models),
        claims=_claims(found),
        plot=report.plot(found),
        measures=[
            MeasureView(
                report.title(one),
                report.score_rows(one, config.seeds),
                report.difference_rows(one, config.seeds) if one.differences else [],
            )
            for one in found.result.measures
        ],
        notes=list(found.result.notes),
        seeds=_cells(found.experiment, asked),
        hidden=max(0, len(status.cells) - MOST_CELLS),
        arms=config.arms,
    )


async def _summary(gathered: Gathering, name: str) -> api.ExperimentStatus | None:
    """Return an experiment without its cells, which is fast."""
    listed = await gathered.part(
        lambda reader: reader.call(reader.clients.coordinator.ListExperiments, api.ListExperimentsRequest())
    )
    found = listed.experiments if listed else ()
    return next((one for one in found if one.id.startswith(name) or one.config.name == name), None)


def _claims(found: api.GetExperimentResponse) -> list[tuple[pb.ExperimentClaim, str, str, str]]:
    """Return each claim with its outcome, the outcome's colour, and the sentence with the numbers."""
    if found.result.decisions:
        return [
            (one.claim, one.outcome, _OUTCOMES.get(one.outcome, "calm"), one.sentence) for one in found.result.decisions
        ]
    return [(claim, "", "", "") for claim in found.experiment.config.claims]


def _cells(status: api.ExperimentStatus, asked: set[str] | None) -> list[tuple[int, list[CellLine]]]:
    """Return the cells by seed, in the order of the arms.

    Args:
        status: The experiment.
        asked: Ids of the evaluations that have been requested. None: not known, so every id is taken for requested.
    """
    words = [_evaluation_words(one) for one in status.config.evaluations]
    by_seed: dict[int, list[CellLine]] = {}
    for cell in status.cells[:MOST_CELLS]:
        made = tuple(
            (text, wanted if asked is None or wanted in asked else "")
            for text, wanted in zip(words, cell.evaluations, strict=False)
        )
        by_seed.setdefault(cell.seed, []).append(
            CellLine(
                cell=cell,
                state=state_name(cell.state) if cell.state else "not started",
                tone=tone(cell.state),
                message=cell.message if cell.state != pb.RUN_STATE_SUCCEEDED else "",
                evaluations=made,
            )
        )
    return list(by_seed.items())


def _evaluation_words(settings: pb.EvaluationSettings) -> str:
    """Return what tells an experiment's evaluations apart: "NanoEval, 5 samples"."""
    sampled = count(settings.samples, "sample") if settings.temperature else "greedy"
    return ", ".join((*(benchmark_title(name) for name in settings.benchmarks), sampled))
