"""The report as one self-contained HTML page: no requests, no scripts, and the same bytes for the same report.

Everything that a model or a file wrote is treated as text: the template escapes all values, invisible characters are
made visible, no address or class comes from data, and the page's content security policy blocks loading and scripts.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.cli import __version__
from codealign.cli.failures import Failure
from codealign.cli.loop_steps import step_cells
from codealign.cli.progress import run_state
from codealign.cli.report import comparing, listing, recipe, sections, target
from codealign.cli.report.agreement import COLUMNS, agreement_view
from codealign.cli.report.outcome import answers, cautions, executes, headline
from codealign.cli.report.rounds import NOTE, round_lines, series_line
from codealign.cli.report.row_history import row_history
from codealign.cli.report.scores import matches, ordered
from codealign.cli.report.wording import Words, short, visible

_TEMPLATE = "template.html.jinja"
JUDGEMENT = "judgement.html.jinja"
"""The macros that show a judgement."""
_PACKAGE = "codealign.cli.report"


def render(report: api.GetReportResponse) -> str:
    """Return the page.

    Args:
        report: The run's report.
    """
    run = report.run
    history = row_history(report)
    row_id = history.row.id if history else ""
    words = Words(report.pipeline)
    passed, written = answers(report)
    css = read("page.css")
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            css=Markup(css),  # noqa: S704 (our own file)
            css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
            producer=f"codealign {__version__}",
            run=run,
            name=run.config.name or f"run {short(run.id)}",
            state=run_state(run),
            headline=headline(report),
            cautions=cautions(report),
            models=recipe.models(run.config),
            report=report,
            passed=passed,
            written=written,
            funnel=sections.funnel(report.stages, words),
            widest=max((stage.items for stage in report.stages), default=0),
            executes=executes(report),
            verdicts=sections.verdict_counts(report),
            agreement=agreement_view(report),
            columns=COLUMNS,
            target=target.sentences(report.target),
            mix=target.shares(report.target),
            history=history,
            costs=sections.costs(report.stages, words),
            totals=sections.totals(report.stages),
            steps=step_cells(run.loop),
            rounds=round_lines(report),
            rounds_note=NOTE,
            series=series_line(run.series),
            trainings=[sections.training(index, record) for index, record in enumerate(report.checkpoints)],
            matches=[comparing.match_view(index, match) for index, match in enumerate(matches(report))],
            evaluations=comparing.evaluation_lines(ordered(report.evaluations, run.config.model.revision), words),
            writing=[one.stage for one in run.config.stages],
            generation=recipe.generation(run.config),
            facts=recipe.facts(run.config),
            stage_configs=recipe.stage_configs(report),
            commands=recipe.commands(report, row_id),
        )
    )


def write(report: api.GetReportResponse, path: Path) -> Path:
    """Write the page to a file atomically.

    Args:
        report: The run's report.
        path: The file, which is replaced if it exists.

    Returns:
        The file's absolute path.

    Raises:
        Failure: The file cannot be written.
    """
    text = render(report)
    try:
        if path.is_dir():
            raise Failure(f"cannot write the report to {path}: it is a directory, name a file")
        if path.exists() and not path.is_file():  # a device or a pipe must not be replaced
            path.write_text(text, encoding="utf-8", newline="\n")
            return path.absolute()
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8", newline="\n")
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"cannot write the report to {path}: {error.strerror or error}") from error
    return path.absolute()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader({name: read(name) for name in (_TEMPLATE, JUDGEMENT)}),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["comma"] = lambda number: f"{number:,}"
    environment.filters["short"] = short
    environment.globals.update(code=listing.code, plain=listing.plain, markdown=listing.markdown)
    return environment


def finalize(value: Any) -> Any:
    """Make invisible characters visible in every printed text; Markup is already done."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def read(name: str) -> str:
    """Return one of the page's own files."""
    return (files(_PACKAGE) / name).read_text(encoding="utf-8")
