"""An experiment's results as a Markdown page, a plot (SVG) and JSON. Names and messages are data, and are escaped."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf import json_format
from markupsafe import Markup

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.report.axes import axis
from codealign.cli.report.wording import benchmark_title, visible
from codealign.common.text import encodable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")
_LINE_ENDS = re.compile(r"\s+")
_WIDTH, _LEFT, _TOP, _LINE, _BOTTOM = 720, 230, 20, 46, 56
_PLOT_HEIGHT = 300
_COLOURS = ("#15803d", "#2563eb", "#c2410c", "#7c3aed", "#0e7490", "#a16207")
_UNTRAINED = "#6b7280"
_MAX_NAME = 32


def escaped(text: str) -> str:
    """Return text as one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", _LINE_ENDS.sub(" ", visible(text)).strip())


def escaped_code(text: str) -> str:
    """Return text as one line that Markdown shows as it is between backticks."""
    return encodable(_LINE_ENDS.sub(" ", visible(text)).replace("`", ""))


def page(found: api.GetExperimentResponse, *, description: str, command: str, plot_file: str) -> str:
    """Return the results as a Markdown page.

    Args:
        found: The experiment with its results.
        description: Text from the experiment's file.
        command: The command that made the page.
        plot_file: Name of the plot's file. Empty: there is none.
    """
    config = found.experiment.config
    parts = [f"# Experiment {escaped(config.name)}"]
    if description:
        parts.append(escaped(description))
    parts.append(_method(found, command))
    if found.result.decisions:
        parts.append("## Claims\n\n" + "\n".join(_claims(found.result.decisions)))
    for number, measure in enumerate(found.result.measures):
        parts.append(f"## {escaped(title(measure))}")
        parts.append(_table(score_rows(measure, config.seeds)))
        if not number and plot_file:
            parts.append(f"![pass@1 by arm]({plot_file})")
        if measure.differences:
            parts.append("Differences within a seed, in points:\n\n" + _table(difference_rows(measure, config.seeds)))
    if not found.result.measures:
        parts.append("No cell has a result yet.")
    notes = list(found.result.notes)
    if notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {escaped(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def title(measure: api.ExperimentMeasure) -> str:
    """Return the heading of a measure: the benchmark, and how it was sampled."""
    sampled = f"{measure.samples} samples at temperature {measure.temperature:g}" if measure.temperature else "greedy"
    some = (
        f"{measure.problems} of {measure.problems_total}"
        if measure.problems < measure.problems_total
        else measure.problems
    )
    return f"{benchmark_title(measure.benchmark)}, {sampled}, {some} problems"


def _method(found: api.GetExperimentResponse, command: str) -> str:
    config = found.experiment.config
    models = ", ".join(f"{escaped(each.model.model)} ({each.model.revision[:12]})" for each in config.models)
    seeds = ", ".join(str(seed) for seed in config.seeds)
    rows = sorted({cell.rows for cell in found.experiment.cells if cell.rows})
    trained = f"{rows[0]:,} to {rows[-1]:,}" if len(rows) > 1 else f"{rows[0]:,}" if rows else "no"
    return (
        f"Written by `{escaped_code(command)}` (experiment {found.experiment.id[:12]}). Models: {models}. Run "
        f"seeds: {seeds}. For every seed each arm has its own data, training and samples. Models are trained on "
        f"{trained} rows; arms that leave the number open have the same number within a seed. Figures are pass@1 in "
        "percent, and errors are standard errors of the mean over the seeds. Intervals and p-values are those of a "
        "paired t-test over the seeds unless the table says otherwise; Holm's correction applies to the claims."
    )


def _claims(decisions: Sequence[api.ExperimentDecision]) -> Iterator[str]:
    for decision in decisions:
        source = f" ({escaped(decision.claim.source)})" if decision.claim.source else ""
        yield f"- {escaped(decision.claim.statement)}{source}\n  **{escaped(decision.sentence)}**"


def score_rows(measure: api.ExperimentMeasure, seeds: Sequence[int]) -> list[list[str]]:
    """Return pass@1 of every arm in percent, one line each, below a line of headings."""
    rows = [["arm", "mean", "standard error", "rows", *(f"seed {seed}" for seed in seeds)]]
    for score in measure.scores:
        by_seed = dict(zip(score.seeds, score.pass_at_1, strict=True))
        error = f"{100 * score.standard_error:.1f}" if score.HasField("standard_error") else "–"
        trained = sorted(set(score.rows) - {0})
        used = f"{trained[0]:,}–{trained[-1]:,}" if len(trained) > 1 else f"{trained[0]:,}" if trained else "–"
        rows.append([score.arm, f"{100 * score.mean:.1f}", error, used, *_by_seed(by_seed, seeds, "")])
    return rows


def difference_rows(measure: api.ExperimentMeasure, seeds: Sequence[int]) -> list[list[str]]:
    """Return the differences between arms in points, one line each, below a line of headings."""
    rows = [["difference", "mean", "95% interval", "p", "test", *(f"seed {seed}" for seed in seeds)]]
    for each in measure.differences:
        by_seed = dict(zip(each.seeds, each.by_seed, strict=True))
        interval = f"{100 * each.interval.low:+.1f} to {100 * each.interval.high:+.1f}"
        p_value = "< 0.001" if each.p_value < 0.001 else f"{each.p_value:.3f}"
        name, mean = f"{each.better} − {each.than}", f"{100 * each.mean:+.1f}"
        rows.append([name, mean, interval, p_value, each.test, *_by_seed(by_seed, seeds, "+")])
    return rows


def _by_seed(values: Mapping[int, float], seeds: Sequence[int], sign: str) -> list[str]:
    return [format(100 * values[seed], f"{sign}.1f") if seed in values else "–" for seed in seeds]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(map(escaped, row))} |" for row in rows]
    ruler = "|---|" + "---:|" * (len(rows[0]) - 1)
    return "\n".join([head, ruler, *body])


def as_json(found: api.GetExperimentResponse) -> str:
    """Return the experiment and its results as JSON, with the contract's field names."""
    fields = json_format.MessageToDict(
        found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(fields, indent=2) + "\n"


def plot(found: api.GetExperimentResponse) -> Markup:
    """Return the first measure as a chart (SVG), or "" without results.

    Of at least three arms that differ in their numbers of rows alone, pass@1 is drawn over the rows; otherwise by arm.
    """
    if not found.result.measures:
        return Markup("")
    measure = found.result.measures[0]
    trained = [arm for arm in found.experiment.config.arms if arm.HasField("run")]
    scores = [score for score in measure.scores if score.arm in {arm.name for arm in trained}]
    if _is_curve(trained) and len({score.rows[0] for score in scores}) > 2:
        return _over_rows(measure, scores)
    return _by_arm(found, measure)


def _is_curve(arms: Sequence[pb.ExperimentArm]) -> bool:
    """Return whether arms have their own numbers of rows and differ in nothing else."""
    others = set()
    for arm in arms:
        other = pb.ExperimentArm()
        other.CopyFrom(arm)
        other.ClearField("name")
        other.ClearField("rows")
        others.add(other.SerializeToString(deterministic=True))
    return len(others) == 1 and all(arm.rows for arm in arms)


def _by_arm(found: api.GetExperimentResponse, measure: api.ExperimentMeasure) -> Markup:
    height = _TOP + _LINE * len(measure.scores) + _BOTTOM
    across = axis(0.0, max(100 * value for score in measure.scores for value in _ends(score)))
    untrained = {arm.name for arm in found.experiment.config.arms if not arm.HasField("run")}

    def x(share: float) -> float:
        return _LEFT + across.at(100 * share) * (_WIDTH - _LEFT - 30)

    parts = []
    for tick in across.ticks:
        at = x(tick / 100)
        parts.append(Markup('<path d="M{:.1f} {}V{}" stroke="#e5e7eb"/>').format(at, _TOP - 8, height - _BOTTOM + 8))
        parts.append(_text(at, height - _BOTTOM + 26, f"{across.label(tick)}%", "middle", "#4b5563"))
    colours = iter(_COLOURS * len(measure.scores))
    for number, score in enumerate(measure.scores):
        y = _TOP + _LINE * number + _LINE / 2
        colour = _UNTRAINED if score.arm in untrained else next(colours)
        parts.append(_text(_LEFT - 14, y + 4, _short(score.arm), "end", "#111827"))
        parts += [_dot(x(value), y + 12, 2.5, colour, 0.5) for value in score.pass_at_1]
        low, high = _ends(score)
        if high > low:
            parts.append(
                Markup('<path d="M{:.1f} {}H{:.1f}M{:.1f} {}v10M{:.1f} {}v10" stroke="{}" stroke-width="2"/>').format(
                    x(low), y, x(high), x(low), y - 5, x(high), y - 5, colour
                )
            )
        parts.append(_dot(x(score.mean), y, 5, colour))
        parts.append(_text(x(score.mean), y - 10, f"{100 * score.mean:.1f}", "middle", "#111827"))
    return _svg(measure, height, parts)


def _over_rows(measure: api.ExperimentMeasure, scores: Sequence[api.ExperimentScore]) -> Markup:
    height = _TOP + _PLOT_HEIGHT + _BOTTOM
    scores = sorted(scores, key=lambda score: score.rows[0])
    others = [score for score in measure.scores if not any(score.rows)]
    across = axis(0, scores[-1].rows[0], whole=True)
    edges = [100 * value for score in (*scores, *others) for value in _ends(score)]
    up = axis(min(edges), max(edges))

    def x(rows: float) -> float:
        return 60 + across.at(rows) * (_WIDTH - 150)

    def y(share: float) -> float:
        return _TOP + (1 - up.at(100 * share)) * _PLOT_HEIGHT

    parts = []
    for tick in up.ticks:
        at = y(tick / 100)
        parts.append(Markup('<path d="M60 {:.1f}H{}" stroke="#e5e7eb"/>').format(at, _WIDTH - 90))
        parts.append(_text(52, at + 4, f"{up.label(tick)}%", "end", "#4b5563"))
    parts += [_text(x(tick), height - _BOTTOM + 26, across.label(tick), "middle", "#4b5563") for tick in across.ticks]
    for score in others:
        at = y(score.mean)
        parts.append(
            Markup('<path d="M60 {:.1f}H{}" stroke="{}" stroke-width="2" stroke-dasharray="5 4"/>').format(
                at, _WIDTH - 90, _UNTRAINED
            )
        )
        parts.append(_text(_WIDTH - 84, at + 4, _short(score.arm), "start", _UNTRAINED))
    points = " ".join(f"{x(score.rows[0]):.1f},{y(score.mean):.1f}" for score in scores)
    parts.append(Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>').format(points, _COLOURS[0]))
    for score in scores:
        low, high = _ends(score)
        parts.append(
            Markup('<path d="M{:.1f} {:.1f}V{:.1f}" stroke="{}" stroke-width="2"/>').format(
                x(score.rows[0]), y(low), y(high), _COLOURS[0]
            )
        )
        parts.append(_dot(x(score.rows[0]), y(score.mean), 4, _COLOURS[0]))
    return _svg(measure, height, parts, "pass@1 by rows trained on; bars: standard error")


def _ends(score: api.ExperimentScore) -> tuple[float, float]:
    """Return the mean minus and plus its standard error."""
    error = score.standard_error if score.HasField("standard_error") and math.isfinite(score.standard_error) else 0.0
    return max(0.0, score.mean - error), min(1.0, score.mean + error)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _dot(x: float, y: float, radius: float, colour: str, opacity: float = 1.0) -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}" opacity="{}"/>').format(
        x, y, radius, colour, opacity
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="{}">{}</text>').format(
        x, y, anchor, colour, visible(text)
    )


def _svg(
    measure: api.ExperimentMeasure,
    height: int,
    parts: Sequence[Markup],
    note: str = "pass@1 by arm; bars: standard error, small dots: seeds",
) -> Markup:
    said = f"{title(measure)}: {note}"
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" font-size="13" '
        'role="img"><title>{}</title><rect width="{}" height="{}" fill="#ffffff"/>'
    ).format(_WIDTH, height, visible(said), _WIDTH, height)
    foot = _text(_WIDTH - 12, height - 10, said, "end", "#4b5563")
    return Markup("\n").join([head, *parts, foot, Markup("</svg>\n")])


def summary(found: api.GetExperimentResponse) -> Iterator[str]:
    """Yield the results as lines for a terminal."""
    for measure in found.result.measures:
        yield title(measure)
        for score in measure.scores:
            error = f" ± {100 * score.standard_error:.1f}" if score.HasField("standard_error") else ""
            yield f"  {score.arm:28} {100 * score.mean:5.1f}{error}"
    for decision in found.result.decisions:
        yield decision.sentence
    if found.experiment.state != pb.RUN_STATE_SUCCEEDED:
        yield found.experiment.message
