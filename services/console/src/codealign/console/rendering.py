"""Turns what was read into a page."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import ChoiceLoader, DictLoader, Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.lineage import kind_name
from codealign.cli.report.page import JUDGEMENT, finalize, read
from codealign.cli.report.wording import short
from codealign.cli.terminal import duration
from codealign.console import texts
from codealign.console.reading import Gathering, Services

SECTIONS = (
    ("runs", "/", "Runs", "r"),
    ("experiments", "/experiments", "Experiments", "x"),
    ("data", "/data", "Data", "d"),
    ("trainings", "/trainings", "Trainings", "t"),
    ("evaluations", "/evaluations", "Evaluations", "e"),
    ("compare", "/compare", "Compare", "c"),
)
"""Name, address, title and key of each section."""


def gather(request: Request) -> Gathering:
    """Return what a page reads with."""
    services: Services = request.app.state.services
    return Gathering(services.reader())


def page(
    request: Request,
    template: str,
    gathered: Gathering,
    *,
    section: str,
    title: str,
    live: bool = False,
    seconds: int = 2,
    status: int = 200,
    **parts: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        request: The request.
        template: Name of the template, without its ending.
        gathered: What was read, with the problems to show.
        section: The section that is marked as the current one.
        title: The page's title.
        live: Whether the page changes on its own and should be read again.
        seconds: Seconds after which a live page is read again.
        status: HTTP status.
        **parts: Values for the template.
    """
    text = (
        environment()
        .get_template(f"{template}.html.jinja")
        .render(
            sections=SECTIONS,
            section=section,
            title=title,
            live=live,
            seconds=seconds,
            problems=gathered.problems,
            path=request.url.path,
            now=datetime.now(UTC).strftime("%H:%M:%S UTC"),
            **parts,
        )
    )
    return HTMLResponse(text, status)


def kind_names(kind: pb.Kind.ValueType) -> str:
    """Return a kind's plural: "rows", "prompt prefixes"."""
    name = kind_name(kind)
    return f"{name}es" if name.endswith("x") else f"{name}s"


@cache
def environment() -> Environment:
    """Return the templates' environment: everything that is printed is escaped and made visible."""
    found = Environment(
        loader=ChoiceLoader(
            [PackageLoader("codealign.console", "templates"), DictLoader({JUDGEMENT: read(JUDGEMENT)})]
        ),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        comma=lambda number: f"{number:,}",
        short=short,
        line=texts.line,
        excerpt=texts.excerpt,
        kind=kind_name,
        kinds=kind_names,
        duration=duration,
        when=texts.when,
        query=urlencode,
    )
    found.globals.update(record_url=texts.record_url, records_url=texts.records_url)
    return found
