"""The console as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from codealign.common.logs import get_logger
from codealign.common.settings import LOOPBACK
from codealign.console import assets
from codealign.console.guard import HEADERS, Guard
from codealign.console.pages import comparing, data, evaluations, experiments, records, runs, trainings
from codealign.console.reading import NotThere, Services
from codealign.console.rendering import gather, page

log = get_logger(__name__)

ROUTES = (
    Route("/", runs.runs),
    Route("/runs", runs.runs),  # where people look for the list, above a run
    Route("/runs/{run}", runs.run),
    Route("/experiments", experiments.experiments),
    Route("/experiments/{experiment}", experiments.experiment),
    Route("/records", records.records),
    Route("/records/{record}", records.record),
    Route("/records/{record}/raw/{field}", records.raw),
    Route("/data", data.data),
    Route("/versions", data.data),
    Route("/versions/{version}", data.version),
    Route("/compare", comparing.compare),
    Route("/trainings", trainings.trainings),
    Route("/trainings/{training}", trainings.training),
    Route("/evaluations", evaluations.evaluations),
    Route("/evaluations/{evaluation}", evaluations.evaluation),
    Route("/static/{name}", assets.asset),
)


def application(services: Services, names: Collection[str] = LOOPBACK) -> Starlette:
    """Return the application.

    Args:
        services: The services that it reads from. They are closed with it.
        names: Host names under which it may be reached.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await services.close()

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Guard, names), Middleware(GZipMiddleware, minimum_size=1000, compresslevel=3)],
        exception_handlers={NotThere: _not_there, HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect names scheme and port, which a proxy may have changed
    app.state.services = services
    return app


async def _not_there(request: Request, error: Exception) -> Response:
    return page(request, "message", gather(request), section="", title="Not found", status=404, message=str(error))


async def _refused(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    message = "There is no such page." if code == 404 else str(getattr(error, "detail", ""))
    return page(request, "message", gather(request), section="", title="Not found", status=code, message=message)


async def _failed(request: Request, error: Exception) -> Response:
    # Starlette makes this answer outside of every middleware, so the guard cannot add its headers.
    log.error("page_failed", path=request.url.path, exc_info=error)
    return PlainTextResponse("This page failed: a bug. The console's log has the details.\n", 500, HEADERS)
