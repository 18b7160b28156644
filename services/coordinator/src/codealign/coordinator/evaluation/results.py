"""Scores and comparisons computed from evaluation results."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.evaluation import statistics
from codealign.coordinator.evaluation.statistics import Score
from codealign.coordinator.ground.tally import verdict_name


@dataclass(frozen=True)
class Outcome:
    """Outcome of one judged sample."""

    passed: bool
    verdict: str


def outcome(record: pb.Record) -> Outcome:
    """Return the outcome in an EvaluationResult record."""
    body = record.evaluation_result
    return Outcome(body.passed, verdict_name(body.result.verdict))


@dataclass
class Board:
    """Known outcomes of a model on a benchmark."""

    config: pb.Record
    """StageConfig of the results."""
    model: str
    samples: int
    """Number of wanted samples per problem."""
    problem_ids: tuple[str, ...]
    """Wanted problems, in benchmark order."""
    outcomes: dict[str, dict[int, Outcome]] = field(default_factory=dict)
    """Outcomes by problem and attempt."""
    total: int = 0
    """Number of problems in the whole benchmark, or 0 to count the wanted problems."""
    undecided: int = 0
    reused: int = 0
    """Number of problems that were complete at the start."""

    def add(self, record: pb.Record) -> None:
        """Add the outcome of an EvaluationResult record."""
        found = self.outcomes.setdefault(record.evaluation_result.problem_id, {})
        found[record.attempt] = outcome(record)

    def done(self) -> list[str]:
        """Return the problems whose samples are all judged."""
        return [each for each in self.problem_ids if len(self.outcomes.get(each, {})) >= self.samples]

    def scores(self) -> dict[str, Score]:
        """Return the scores of the complete problems."""
        return {
            problem_id: Score(self.samples, sum(each.passed for each in self._taken(problem_id)))
            for problem_id in self.done()
        }

    def pass_at_k(self) -> dict[int, list[float]]:
        """Return pass@k of each complete problem, by k."""
        scores = self.scores().values()
        return {
            k: [statistics.pass_at_k(score.samples, score.passed, k) for score in scores]
            for k in statistics.ks(self.samples)
        }

    def progress(self) -> api.EvaluateResponse:
        """Return the current progress."""
        return api.EvaluateResponse(
            benchmark=self.settings["benchmark"],
            problems_done=len(self.done()),
            problems_total=len(self.problem_ids),
            pass_at_k={k: statistics.mean(values) for k, values in self.pass_at_k().items() if values},
            problems_reused=self.reused,
        )

    def evaluation(self) -> api.Evaluation:
        """Return the result, with confidence intervals."""
        settings, scores = self.settings, self.scores()
        found = api.Evaluation(
            id=self.config.id,
            benchmark=settings["benchmark"],
            model=self.model,
            model_revision=settings["model_revision"],
            prompt_style=settings["prompt_style"],
            samples=self.samples,
            temperature=settings["temperature"],
            max_tokens=settings["max_tokens"],
            problems_total=self.total or len(self.problem_ids),
            problems_done=len(scores),
            verdicts=Counter(each.verdict for problem_id in scores for each in self._taken(problem_id)),
            scores=[
                api.ProblemScore(problem_id=problem_id, samples=score.samples, passed=score.passed)
                for problem_id, score in scores.items()
            ],
            undecided=self.undecided,
        )
        for k, values in self.pass_at_k().items():
            if values:
                found.pass_at_k[k] = statistics.mean(values)
                low, high = self._interval(values)
                found.intervals[k].CopyFrom(api.Interval(low=low, high=high))
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the configuration."""
        return settings_of(self.config)

    def _interval(self, values: list[float]) -> statistics.Interval:
        if self.samples == 1:
            return statistics.wilson(round(sum(values)), len(values))
        return statistics.bootstrap(values)

    def _taken(self, problem_id: str) -> list[Outcome]:
        """Return the outcomes that count: those with the lowest attempt numbers."""
        found = self.outcomes.get(problem_id, {})
        return [found[attempt] for attempt in sorted(found)[: self.samples]]


def settings_of(config: pb.Record) -> dict[str, Any]:
    """Return the settings of a StageConfig record."""
    found: dict[str, Any] = json.loads(config.stage_config.settings_json)
    return found


def comparison(base: Board, tuned: Board) -> api.Comparison | None:
    """Compare two models on their common problems; None if there are none.

    If one has more samples, as many of its first ones count as the other has.
    """
    samples = min(base.samples, tuned.samples)
    first, second = (replace(board, samples=samples).scores() for board in (base, tuned))
    shared = [problem_id for problem_id in first if problem_id in second]
    if not shared:
        return None
    paired = statistics.compare([first[each] for each in shared], [second[each] for each in shared])
    low, high = paired.interval
    return api.Comparison(
        benchmark=base.settings["benchmark"],
        base=base.config.id,
        tuned=tuned.config.id,
        problems=len(shared),
        difference=paired.difference,
        interval=api.Interval(low=low, high=high),
        base_better=paired.first_better,
        tuned_better=paired.second_better,
        p_value=paired.p_value,
        test=paired.test,
    )
