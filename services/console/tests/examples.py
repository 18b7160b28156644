"""A run's target, a series of rounds and an experiment, with the same text wherever a model or a person may write."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb

RUNNING, SUCCEEDED, FAILED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED


def add_target(report: api.GetReportResponse, *, ended: bool, text: str = "") -> None:
    """Give a run a target that it is drawing for, or that it has reached."""
    report.run.config.target.CopyFrom(pb.Target(rows=400, tokens=2_000_000, device_hours=8, devices=2))
    if not ended:
        report.run.forecast.CopyFrom(api.Forecast(rows=100, tokens=500_000, device_hours=1.5))
        report.run.forecast.text = f"100 of 400 rows; about 390 rows at the end in about 2 h 10 min{text}"
        return
    mix = [pb.TargetShare(property="difficulty", value=text or "hard", instructions=600, rows=200)]
    summary = pb.TargetSummary(why="rows", rows=400, tokens=1_200_000, seeds=900, mix=mix)
    report.target.CopyFrom(summary)


def add_series(
    report: api.GetReportResponse,
    runs: Sequence[str],
    state: pb.RunState.ValueType = FAILED,
    message: str = "stopped after round 2 of 3: distinct-2 of its instructions is 0.100, below 0.5 of round 1's 0.400",
    text: str = "",
) -> None:
    """Put a run into a series of three rounds, of which those with these runs have begun; the last is in progress."""
    series = report.run.series
    series.id, series.state, series.message = "5" * 32, state, message + text
    series.config.CopyFrom(pb.RoundSeries(number=3, generates="everything", train_from="base"))
    series.config.stop.CopyFrom(pb.StopRules(worse_p=0.05, pass_rate=0.5, diversity=0))
    for number, run in enumerate(runs, start=1):
        made = report.rounds.add(round=pb.Round(number=number, run=run))
        if number < len(runs):
            data = pb.RoundData(version=text or f"v-{number}", rows=31, pass_rate=0.237, concepts=50)
            data.instructions.CopyFrom(pb.TextDiversity(distinct_2=0.395, similarity=0.011))
            made.round.data.CopyFrom(data)
            made.round.checkpoint = "c" * 32
            score = made.evaluations.add(id="e" * 32, benchmark=text or "nanoeval", samples=5, pass_at_k={1: 0.613})
            score.intervals[1].CopyFrom(api.Interval(low=0.5, high=0.7))
            made.comparisons.add(tuned=score.id, difference=-0.159, p_value=0.0004)
        series.rounds.append(made.round)


def experiment(
    run: str = "a" * 32, *, state: pb.RunState.ValueType = RUNNING, text: str = ""
) -> api.GetExperimentResponse:
    """Return an experiment of two arms and two seeds, of which the second seed's trained arm has failed."""
    found = api.GetExperimentResponse()
    status, config = found.experiment, found.experiment.config
    status.id, status.state, status.message = "d" * 32, state, text or "arm passes, seed 1: it has failed"
    config.name = text or "what passing is worth"
    config.models.add(model=pb.ModelChoice(model=text or "nano", revision="r" * 40))
    config.seeds.extend([0, 1])
    names = [f"base{text}", f"passes{text}"]
    config.arms.add(name=names[0], model=text or "nano")
    config.arms.add(name=names[1], model=text or "nano", run=pb.Run(pipeline=text or "selfcodealign"))
    config.evaluations.add(benchmarks=[text or "nanoeval"], samples=5, temperature=0.7)
    claim = config.claims.add(
        statement=f"Passing helps.{text}", better=names[1], than=names[0], source=f"Table 9{text}"
    )
    for seed in config.seeds:
        evaluated = ("e" if seed else "f") * 32
        status.cells.add(arm=names[0], seed=seed, state=SUCCEEDED, evaluations=[evaluated])
        cell = status.cells.add(arm=names[1], seed=seed, run=run, version=text or "v-1", rows=127, rows_available=180)
        cell.state, cell.message = (FAILED, f"the training failed{text}") if seed else (SUCCEEDED, "")
        cell.training = "7" * 32
    measure = found.result.measures.add(
        benchmark=text or "nanoeval", samples=5, temperature=0.7, problems=164, problems_total=164
    )
    measure.scores.add(arm=names[0], seeds=[0, 1], pass_at_1=[0.45, 0.47], mean=0.46, standard_error=0.01, rows=[0, 0])
    measure.scores.add(arm=names[1], seeds=[0], pass_at_1=[0.6], mean=0.6, rows=[127])
    difference = measure.differences.add(better=names[1], than=names[0], seeds=[0], by_seed=[0.15], mean=0.15)
    difference.interval.CopyFrom(api.Interval(low=0.08, high=0.22))
    difference.p_value, difference.test = 0.0002, f"paired bootstrap over problems{text}"
    decided = found.result.decisions.add(claim=claim, outcome="supported", difference=difference)
    decided.sentence = f"Supported: passes is better than base on nanoeval by 15.0 points.{text}"
    found.result.notes.append(f"1 of 4 cells have no result yet{text}")
    return found
