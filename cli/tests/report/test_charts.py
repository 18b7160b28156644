"""Axes, charts and listings: round ticks, and nothing outside the plot for any numbers."""

from __future__ import annotations

import math
import re

import pytest

from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.report import charts, listing
from codealign.cli.report.axes import axis, power


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.48, 0.83, ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]),
        (21.7, 38.6, ["20", "25", "30", "35", "40"]),
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-9.2, 9.2, ["−10", "−5", "0", "5", "10"]),
        (7.0, 7.0, ["2", "4", "6", "8", "10", "12"]),
        (0.0, 0.0, ["−0.6", "−0.4", "−0.2", "0.0", "0.2", "0.4", "0.6"]),
        (1e7, 4e7, ["1 × 10⁷", "2 × 10⁷", "3 × 10⁷", "4 × 10⁷"]),
    ],
)
def test_ticks_are_round_and_cover_the_values(low: float, high: float, labels: list[str]) -> None:
    found = axis(low, high)
    assert [found.label(tick) for tick in found.ticks] == labels
    assert found.low <= low <= high <= found.high


def test_an_axis_of_steps_ends_where_they_end_and_has_whole_ticks() -> None:
    found = axis(1, 24, whole=True, snap=False)
    assert (found.low, found.high, found.ticks) == (1, 24, (5, 10, 15, 20))
    assert axis(1, 2, whole=True, snap=False).ticks == (1, 2)
    assert [found.at(step) for step in (1, 24, 99)] == [0.0, 1.0, 1.0]


def test_powers_of_ten() -> None:
    assert [power(1e-5), power(-2.5e-7)] == ["1 × 10⁻⁵", f"{chr(0x2212)}2.5 × 10⁻⁷"]


def points(*losses: float) -> list[training.LossPoint]:
    return [training.LossPoint(step=step, loss=loss, learning_rate=1e-5) for step, loss in enumerate(losses, 1)]


def test_the_loss_curve_names_its_axes_and_its_end() -> None:
    chart = charts.loss_chart(points(1.5, 1.0, 0.75), name="loss")
    assert "training loss (nats per token)" in chart
    assert "optimizer step" in chart
    assert "learning rate (peak 1 × 10⁻⁵)" in chart
    assert ">0.750</text>" in chart
    assert "From 1.500 at step 1 to 0.750 at step 3." in chart


@pytest.mark.parametrize(
    "losses",
    [
        (1.5,),
        (1.0, 1.0),
        (0.0, 0.0),
        (math.nan, 1.0, math.inf, 0.5),
        (1e30, 1e-30),
        (-1e-320, 1e-320),
        tuple(range(1000)),
    ],
)
def test_a_loss_curve_stays_inside_its_plot(losses: tuple[float, ...]) -> None:
    chart = charts.loss_chart(points(*losses), name="loss")
    (curve,) = re.findall(r'class="loss" points="([^"]*)"', chart)
    numbers = [float(number) for pair in curve.split() for number in pair.split(",")]
    assert all(0 <= number <= 1000 for number in numbers)
    assert "nan" not in chart
    assert "inf" not in chart


def test_without_a_finite_loss_there_is_no_curve() -> None:
    assert charts.loss_chart(points(math.nan), name="loss") == ""
    assert charts.loss_chart([], name="loss") == ""
    assert charts.spark([math.nan]) == ""


def test_a_spark_line_is_as_long_as_its_values_up_to_its_cells() -> None:
    assert charts.spark([3, 2, 1]) == "█▅▁"
    assert charts.spark([1, 1]) == "▁▁"
    assert len(charts.spark(list(range(1000)))) == 24


def test_differences_are_drawn_about_zero() -> None:
    marks = (charts.Mark("difference", 3.0, -3.7, 9.2, "+3.0"),)
    chart = charts.forest([charts.Group("X", marks)], unit="points", signed=True, title="t", name="n")
    assert '<line class="zero" x1="50.00%" x2="50.00%"' in chart
    (at,) = re.findall(r'<circle class="dot difference" cx="([\d.]+)%"', chart)
    assert 50 < float(at) < 100


def test_levels_stay_between_none_and_all() -> None:
    marks = (charts.Mark("base", 0.0, 0.0, 2.3, "0.0%"), charts.Mark("tuned", 100.0, 97.7, 100.0, "100.0%"))
    chart = charts.forest([charts.Group("X", marks)], unit="%", signed=False, title="t", name="n")
    assert re.findall(r'cx="([\d.]+)%"', chart) == ["0.00", "100.00"]
    assert ">120<" not in chart


def test_a_bar_never_exceeds_its_width_and_a_sliver_is_seen() -> None:
    bar = charts.bar(("kept", 0.9), ("dropped", 0.4))
    assert re.findall(r'width="([\d.]+)%"', bar) == ["90.000", "10.000"]
    assert 'width="2"' in charts.bar(("kept", 1e-9))
    assert "<rect" not in charts.bar(("kept", 0.0))


def test_python_is_coloured_line_by_line() -> None:
    html = listing.code('def f(x):\n    """One\n    two <b>"""\n    return len(x)  # why\n', "code")
    assert '<span class="keyword">def</span> f(x):' in html
    assert '<span class="string">&#34;&#34;&#34;One</span>\n<span class="string">    two &lt;b&gt;' in html
    assert '<span class="builtin">len</span>' in html
    assert '<span class="comment"># why</span>' in html


@pytest.mark.parametrize(
    "text", ["", "'''", "def (", "\tx\n y", "\\", "if x:\n    y\n  z", "0777 $ ?", "(" * 5000, "é = 'ß'"]
)
def test_what_is_no_python_is_shown_as_it_is(text: str) -> None:
    html = listing.code(text, "code")
    plain = re.sub(r"<[^>]*>", "", html).replace("&#39;", "'").replace("&gt;", ">")
    assert plain == text.strip("\n")


def test_long_listings_are_folded_and_nothing_is_lost() -> None:
    html = listing.code("\n".join(f"x{number} = {number}" for number in range(100)), "code")
    assert html.count("<details>") == 1
    assert "82 more lines" in html
    assert all(f"x{number} = {number}" in html for number in range(100))


def test_markdown_is_paragraphs_names_and_code() -> None:
    html = listing.markdown("One `a<b` two.\n\n```python\nreturn 1\n```\nAfter **all**.\n```\nnever closed", "answer")
    assert "<p>One <code>a&lt;b</code> two.</p>" in html
    assert '<span class="keyword">return</span> 1' in html
    assert "<p>After **all**.</p>" in html
    assert "never closed" in html
    assert "```" not in html
