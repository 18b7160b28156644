"""The report's charts as inline SVG.

Widths are percentages of the page and text has the page's size, so that a chart fits wide screens and phones. Colours
are classes of the style sheet. All text is escaped by `Markup.format`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.report.axes import Axis, axis, power
from codealign.cli.report.wording import loss, visible

_PLOT_HEIGHT = 200
_RATE_HEIGHT = 44
_GROUP_HEAD, _GROUP_BODY, _GROUP_GAP = 22, 44, 12  # the same for one mark and two, so that charts align
_GUTTER = 44  # the style sheet's margin to the left of a plot
_MAX_TITLE = 32  # fits a phone; the table beside the chart has the full title
_SLIVER = 0.003
_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Mark:
    """A value with its interval, in the axis' unit."""

    kind: str
    """"base", "tuned" or "difference": selects the style."""
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Group:
    """Marks under one heading."""

    title: str
    marks: tuple[Mark, ...]


def bar(*parts: tuple[str, float], css: str = "bar") -> Markup:
    """Return a bar of adjacent parts. It is hidden from screen readers because the text beside it has the numbers.

    Args:
        *parts: Kind of each part, and its share of the width.
        css: CSS class of the bar.
    """
    return Markup('<svg class="{}" aria-hidden="true" focusable="false">{}</svg>').format(css, _stacked(parts))


def stage_bar(kept: float, dropped: float, *, title: str, description: str, name: str) -> Markup:
    """Return a funnel stage's bar: kept, then dropped, as shares of the widest stage."""
    return _svg("stage-bar", None, title, description, name, _stacked((("kept", kept), ("dropped", dropped))))


def flow(start: float, end: float) -> Markup:
    """Return the shape that connects a stage's kept items to the next stage's bar."""
    return Markup(
        '<svg class="flow" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<polygon points="0,0 {:.2f},0 {:.2f},100 0,100"/></svg>'
    ).format(100 * start, 100 * end)


def _stacked(parts: Iterable[tuple[str, float]]) -> Markup:
    drawn, start = [], 0.0
    for kind, share in parts:
        share = min(max(share, 0.0), 1.0 - start)
        if share > 0:
            width = f"{100 * share:.3f}%" if share > _SLIVER else "2"  # two pixels keep small shares visible
            drawn.append(
                Markup('<rect class="{}" x="{:.3f}%" width="{}" height="100%"/>').format(kind, 100 * start, width)
            )
            start += share
    return Markup("").join(drawn)


def loss_chart(points: Sequence[training.LossPoint], *, name: str) -> Markup:
    """Return the training loss and the learning rate over the optimizer's steps, or "" without a finite point."""
    usable = [point for point in points if math.isfinite(point.loss)]
    if not usable:
        return Markup("")
    across = axis(usable[0].step, usable[-1].step, whole=True, snap=False)
    values = [point.loss for point in usable]
    up = axis(min(values), max(values), wanted=4)
    parts = [_grid(up, 0, _PLOT_HEIGHT), _line(usable, values, across, up, 0, _PLOT_HEIGHT, "loss")]
    last = usable[-1]
    parts.append(_end_label(across.at(last.step), _down(up, last.loss, 0, _PLOT_HEIGHT), loss(last.loss)))
    height = _PLOT_HEIGHT
    rates = [point.learning_rate for point in usable]
    if max(rates) > 0 and all(map(math.isfinite, rates)):
        top = height + 46
        peak = Axis(0.0, max(rates), (0.0, max(rates)), 0)
        parts.append(_text("axis-title", "0", top - 10, f"learning rate (peak {power(max(rates))})", dx=-_GUTTER))
        parts += [_rule(peak, 0.0, top, _RATE_HEIGHT, "0"), _rule(peak, max(rates), top, _RATE_HEIGHT, "")]
        parts.append(_line(usable, rates, across, peak, top, _RATE_HEIGHT, "rate"))
        height = top + _RATE_HEIGHT
    parts += _bottom(across, height, "optimizer step")
    parts.insert(0, _text("axis-title", "0", -14, "training loss (nats per token)", dx=-_GUTTER))
    title = "Training loss by step"
    first = usable[0]
    described = f"From {loss(first.loss)} at step {first.step:,} to {loss(last.loss)} at step {last.step:,}."
    return _svg("plot loss-plot", height, title, described, name, Markup("").join(parts))


def forest(groups: Sequence[Group], *, unit: str, signed: bool, title: str, name: str) -> Markup:
    """Return a forest plot: dots with their intervals, one row each.

    Args:
        groups: Marks by heading.
        unit: Title of the axis.
        signed: Whether the values are differences, shown on an axis that is symmetric about zero.
        title: Title for screen readers.
        name: Prefix of element ids.
    """
    edges = [edge for group in groups for mark in group.marks for edge in (mark.low, mark.high)]
    if signed:
        reach = max(1.0, *(abs(edge) for edge in edges))
        across = axis(-reach, reach, wanted=4)
    else:
        across = axis(max(0.0, min(edges) - 2), min(100.0, max(edges) + 2), wanted=4)
    height = len(groups) * (_GROUP_HEAD + _GROUP_BODY + _GROUP_GAP)
    parts = [_upright(across, tick, height, "zero" if signed and not tick else "grid") for tick in across.ticks]
    top, described = 0, []
    for group in groups:
        parts.append(_text("group", "0", top + 15, _short(group.title), dx=-_GUTTER))
        top += _GROUP_HEAD
        for index, mark in enumerate(group.marks):
            parts.append(_mark(mark, across, top + _GROUP_BODY * (index + 0.5) / len(group.marks)))
            described.append(f"{group.title}, {mark.kind}: {mark.text}")
        top += _GROUP_BODY + _GROUP_GAP
    parts += _bottom(across, height, unit)
    return _svg("plot forest-plot", height, title, ". ".join(described) + ".", name, Markup("").join(parts))


def _short(title: str) -> str:
    return title if len(title) <= _MAX_TITLE else f"{title[: _MAX_TITLE - 1]}…"


def _mark(mark: Mark, across: Axis, y: float) -> Markup:
    start, end, at = (100 * across.at(value) for value in (mark.low, mark.high, mark.value))
    parts = [] if mark.kind == "difference" else [_text("row", "0", y + 4, mark.kind, dx=-10, anchor="end")]
    parts.append(
        Markup('<line class="interval {}" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>').format(
            mark.kind, start, end, y, y
        )
    )
    parts.append(Markup('<circle class="dot {}" cx="{:.2f}%" cy="{}" r="5"/>').format(mark.kind, at, y))
    parts.append(_text("value", "100%", y + 4, mark.text, dx=10))
    return Markup("").join(parts)


def spark(values: Sequence[float], cells: int = 24) -> str:
    """Return a curve as one line of text. Each cell is the mean of its share of the values."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    cells = min(cells, len(finite))
    edges = [round(index * len(finite) / cells) for index in range(cells + 1)]
    means = [sum(finite[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(_SPARKS[round((mean - low) / span * (len(_SPARKS) - 1)) if span else 0] for mean in means)


def _down(up: Axis, value: float, top: float, height: float) -> float:
    return top + height * (1 - up.at(value))


def _grid(up: Axis, top: float, height: float) -> Markup:
    return Markup("").join(_rule(up, tick, top, height, up.label(tick)) for tick in up.ticks)


def _rule(up: Axis, value: float, top: float, height: float, label: str) -> Markup:
    y = _down(up, value, top, height)
    line = Markup('<line class="grid" x1="0" x2="100%" y1="{:.1f}" y2="{:.1f}"/>').format(y, y)
    return line + _text("tick", "0", y + 4, label, dx=-8, anchor="end")


def _upright(across: Axis, tick: float, height: float, css: str) -> Markup:
    x = 100 * across.at(tick)
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="0" y2="{}"/>').format(css, x, x, height)


def _bottom(across: Axis, height: float, unit: str) -> list[Markup]:
    ticks = [
        _text("tick", f"{100 * across.at(tick):.2f}%", height + 18, across.label(tick), anchor="middle")
        for tick in across.ticks
    ]
    return [*ticks, _text("axis-title", "100%", height + 38, unit, anchor="end")]


def _line(
    points: Sequence[training.LossPoint],
    values: Sequence[float],
    across: Axis,
    up: Axis,
    top: float,
    height: float,
    css: str,
) -> Markup:
    """Return a curve in a nested SVG that stretches with the page, with a stroke that does not."""
    pairs = zip(points, values, strict=True)
    path = " ".join(f"{1000 * across.at(point.step):.1f},{1000 * (1 - up.at(value)):.1f}" for point, value in pairs)
    return Markup(
        '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 1000 1000" preserveAspectRatio="none" '
        'class="curve"><polyline class="{}" points="{}" vector-effect="non-scaling-stroke"/></svg>'
    ).format(top, height, css, path)


def _end_label(x: float, y: float, text: str) -> Markup:
    dot = Markup('<circle class="end" cx="{:.2f}%" cy="{:.1f}" r="4"/>').format(100 * x, y)
    return dot + _text("value", f"{100 * x:.2f}%", y + 4, text, dx=10)


def _text(css: str, x: str, y: float, text: str, *, dx: int = 0, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{}" dx="{}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        css, x, dx, y, anchor, visible(text)
    )


def _svg(css: str, height: float | None, title: str, description: str, name: str, body: Markup) -> Markup:
    size = Markup(' height="{:.0f}"').format(height) if height is not None else ""
    return Markup(
        '<svg class="{}" role="img" aria-labelledby="{}-title {}-desc"{}><title id="{}-title">{}</title>'
        '<desc id="{}-desc">{}</desc>{}</svg>'
    ).format(css, name, name, size, name, escape(visible(title)), name, escape(visible(description)), body)
