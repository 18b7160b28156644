"""An experiment's results, computed from the stored evaluations of its cells. Pure functions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.evaluation.results import Board
from codealign.coordinator.evaluation.statistics import Score, mean
from codealign.coordinator.experiments import statistics
from codealign.coordinator.experiments.cells import trained
from codealign.coordinator.experiments.history import SUCCEEDED, Cell
from codealign.coordinator.experiments.statistics import LEVEL, T_TEST, Scores

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
_JUDGES = ("benchmark_sha256", "judge", "runners", "templates_sha256")
"""Settings of an evaluation that all figures of a measure must share."""

Found = dict[str, dict[int, Scores]]
"""Scores by arm and seed."""


def build(experiment: pb.Experiment, cells: Sequence[Cell], boards: Sequence[Board]) -> api.ExperimentResult:
    """Return the results of the cells that have ended successfully.

    Args:
        experiment: The experiment.
        cells: All its cells.
        boards: Evaluations of the cells' models, and possibly others.
    """
    result = api.ExperimentResult()
    done = [cell for cell in cells if cell.status.state == SUCCEEDED]
    found: dict[tuple[str, int], tuple[api.ExperimentMeasure, Found]] = {}
    for at, settings in enumerate(experiment.evaluations):
        for benchmark in settings.benchmarks:
            scores, total, notes = _scores(done, at, benchmark, boards)
            result.notes.extend(notes)
            if not scores:
                continue
            measure = _measure(settings, benchmark, total, scores, done)
            found[benchmark, at] = measure, scores
            measure.differences.extend(_differences(experiment, scores))
            result.measures.append(measure)
    result.decisions.extend(_decisions(experiment, list(found.values())))
    result.notes.extend(_notes(experiment, cells))
    return result


def _scores(cells: Sequence[Cell], at: int, benchmark: str, boards: Sequence[Board]) -> tuple[Found, int, list[str]]:
    """Return all cells' scores on the problems that they have in common, the benchmark's size, and notes.

    All scores were judged by the same runners on the same file: those that judged most cells.
    """
    by_judge: dict[str, dict[tuple[str, int], dict[str, Score]]] = {}
    total = 0
    for cell in cells:
        if at >= len(cell.evaluations):
            continue
        settings = cell.evaluations[at]
        for board in boards:
            if not _is_of(board, settings, benchmark):
                continue
            exact = Board(board.config, board.model, settings.samples, board.problem_ids, board.outcomes, board.total)
            judge = json.dumps([board.settings.get(name) for name in _JUDGES], sort_keys=True)
            if scores := exact.scores():
                by_judge.setdefault(judge, {})[cell.status.arm, cell.status.seed] = scores
                total = max(total, board.total)
    if not by_judge:
        return {}, 0, []
    best = max(sorted(by_judge), key=lambda judge: len(by_judge[judge]))
    chosen, notes = by_judge[best], []
    if len(chosen) < len(cells):
        notes.append(
            f"{benchmark}: {len(cells) - len(chosen)} of {len(cells)} cells were judged by other runners or on another "
            "file, and are left out: evaluate them again"
        )
    shared = set.intersection(*(set(scores) for scores in chosen.values()))
    most = max(len(scores) for scores in chosen.values())
    if len(shared) < most:
        notes.append(f"{benchmark}: the figures are about the {len(shared)} problems that were judged for every cell")
    found: Found = {}
    for (arm, seed), scores in chosen.items():
        if shared:
            found.setdefault(arm, {})[seed] = {each: scores[each] for each in sorted(shared)}
    return found, total, notes


def _is_of(board: Board, settings: pb.EvaluationSettings, benchmark: str) -> bool:
    made = board.settings
    return bool(
        made["model_revision"] == settings.model.revision
        and made["benchmark"] == benchmark
        and made["prompt_style"] == settings.prompt_style
        and made["max_tokens"] == settings.max_tokens
        and made["temperature"] == settings.temperature
        and made["seed"] == (settings.seed if settings.temperature > 0 else 0)
    )


def _measure(
    settings: pb.EvaluationSettings, benchmark: str, total: int, scores: Found, cells: Sequence[Cell]
) -> api.ExperimentMeasure:
    rows = {(cell.status.arm, cell.status.seed): cell.status.rows for cell in cells}
    measure = api.ExperimentMeasure(
        benchmark=benchmark, samples=settings.samples, temperature=settings.temperature, problems_total=total
    )
    for arm in dict.fromkeys(cell.status.arm for cell in cells):
        if arm not in scores:
            continue
        values = {seed: statistics.rate(found) for seed, found in sorted(scores[arm].items())}
        measure.problems = len(next(iter(scores[arm].values())))
        score = measure.scores.add(
            arm=arm,
            seeds=values,
            pass_at_1=values.values(),
            mean=mean(list(values.values())),
            rows=[rows[arm, seed] for seed in values],
        )
        if (error := statistics.standard_error(list(values.values()))) is not None:
            score.standard_error = error
    return measure


def _pairs(experiment: pb.Experiment) -> Iterator[tuple[str, str]]:
    yield from ((claim.better, claim.than) for claim in experiment.claims)
    for untrained in experiment.arms:
        if not trained(untrained):
            yield from ((arm.name, untrained.name) for arm in experiment.arms if trained(arm))


def _differences(experiment: pb.Experiment, scores: Found) -> Iterator[api.ExperimentDifference]:
    for better, than in dict.fromkeys(_pairs(experiment)):
        found = _difference(better, than, scores)
        if found is not None:
            yield found


def _difference(better: str, than: str, scores: Found) -> api.ExperimentDifference | None:
    """Return the difference of two arms over the seeds that both have, or None if there is none."""
    one, two = scores.get(better, {}), scores.get(than, {})
    seeds = sorted(set(one) & set(two))
    if not seeds:
        return None
    found = statistics.difference([one[seed] for seed in seeds], [two[seed] for seed in seeds])
    low, high = found.interval
    return api.ExperimentDifference(
        better=better,
        than=than,
        seeds=seeds,
        by_seed=found.by_seed,
        mean=found.mean,
        interval=api.Interval(low=low, high=high),
        p_value=found.p_value,
        test=found.test,
    )


def _decisions(
    experiment: pb.Experiment, measures: Sequence[tuple[api.ExperimentMeasure, Found]]
) -> Iterator[api.ExperimentDecision]:
    """Decide every claim, with Holm's correction over all of them. A claim without results counts with p = 1."""
    compared = [_claimed(claim, experiment, measures) for claim in experiment.claims]
    adjusted = statistics.holm([found.p_value if found else 1.0 for _, found in compared])
    for claim, (benchmark, found), p_value in zip(experiment.claims, compared, adjusted, strict=True):
        decision = api.ExperimentDecision(claim=claim, outcome=UNDECIDED, adjusted_p_value=p_value)
        if found is None:
            decision.sentence = f"Undecided: {claim.better} and {claim.than} have no results of the same seed"
            decision.sentence += f" on {benchmark}." if benchmark else "."
        else:
            decision.difference.CopyFrom(found)
            if p_value < LEVEL and found.mean:
                decision.outcome = SUPPORTED if found.mean > 0 else CONTRADICTED
            decision.sentence = _sentence(decision, benchmark, len(experiment.claims))
        yield decision


def _claimed(
    claim: pb.ExperimentClaim, experiment: pb.Experiment, measures: Sequence[tuple[api.ExperimentMeasure, Found]]
) -> tuple[str, api.ExperimentDifference | None]:
    """Return the benchmark that decides a claim, and the difference on it."""
    name = claim.benchmark or experiment.evaluations[0].benchmarks[0]
    for measure, scores in measures:
        if measure.benchmark == name:
            return name, _difference(claim.better, claim.than, scores)
    return name, None


def _sentence(decision: api.ExperimentDecision, benchmark: str, claims: int) -> str:
    claim, found = decision.claim, decision.difference
    points, low, high = (100 * each for each in (found.mean, found.interval.low, found.interval.high))
    if decision.outcome == SUPPORTED:
        said = f"Supported: {claim.better} is better than {claim.than} on {benchmark} by {points:.1f} points"
    elif decision.outcome == CONTRADICTED:
        said = f"Contradicted: {claim.better} is worse than {claim.than} on {benchmark} by {-points:.1f} points"
    else:
        said = f"Undecided: {claim.better} minus {claim.than} on {benchmark} is {points:+.1f} points"
    seeds = f"{len(found.seeds)} seed" + ("s" if len(found.seeds) > 1 else "")
    over = f"over {seeds}" if found.test == T_TEST else f"over problems, {seeds}"
    corrected = (
        f", {_p(decision.adjusted_p_value).removeprefix('= ')} after Holm's correction over {claims} claims"
        if claims > 1
        else ""
    )
    return f"{said} (95% interval {low:+.1f} to {high:+.1f} {over}; p {_p(found.p_value)}{corrected})."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _notes(experiment: pb.Experiment, cells: Sequence[Cell]) -> Iterator[str]:
    states = Counter(cell.status.state for cell in cells)
    if states[SUCCEEDED] < len(cells):
        yield f"{len(cells) - states[SUCCEEDED]} of {len(cells)} cells have no result yet"
        for cell in cells:
            if cell.status.state in (pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED):
                yield f"arm {cell.status.arm}, seed {cell.status.seed}: {cell.status.message}"
    if len(experiment.seeds) == 1:
        yield (
            "There is one seed: the intervals are over problems, so they say nothing about other data, trainings or "
            "samples"
        )
    elif len(experiment.seeds) == 2:
        yield "There are two seeds: an interval over seeds has one degree of freedom and is very wide"
    if all(not settings.temperature for settings in experiment.evaluations) and any(
        not trained(arm) for arm in experiment.arms
    ):
        yield "The evaluation is greedy, so an untrained model has the same figure for every seed"
