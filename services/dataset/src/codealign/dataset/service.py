"""Wires the service and keeps its readiness equal to the database's availability."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from codealign.api.dataset.v1.dataset_pb2_grpc import add_DatasetServiceServicer_to_server
from codealign.common.errors import CodeAlignError, ConfigurationError, Unavailable
from codealign.common.logs import get_logger
from codealign.common.metrics import watch_disk
from codealign.common.server import ALL, Callers, Readiness, Registration
from codealign.dataset.metrics import DATABASE_UP, show_size
from codealign.dataset.publishing.folders import VersionFolders
from codealign.dataset.publishing.publisher import Publisher
from codealign.dataset.servicer import DatasetServicer
from codealign.dataset.settings import DatasetSettings
from codealign.dataset.storage import migrate
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.size import measure
from codealign.dataset.workers import Workers

FULL_NAME = "codealign.api.dataset.v1.DatasetService"
_OF_TRAININGS = ("Append", "GetVersion")
CALLERS: Callers = {
    "coordinator": (
        *("Append", "Scan", "Get", "Join", "Count", "Lineage", "PublishVersion"),
        *("AcquireLease", "RenewLease", "ReleaseLease"),
    ),
    "trainer": _OF_TRAININGS,
    "operator": _OF_TRAININGS,
    "console": ("Scan", "Browse", "Get", "Count", "Lineage", "ListCollections", "GetVersion", "ListVersions"),
    "client": ALL,
}
"""Methods that each service may call."""
START_RETRY_SECONDS = 1.0
SIZE_SECONDS = 30.0
"""Seconds between measurements of the database's size."""

log = get_logger(__name__)


def open_database(settings: DatasetSettings) -> Database:
    """Return the database of these settings without connecting to it.

    Raises:
        ConfigurationError: Its URL is invalid, or its directory cannot be created.
    """
    try:
        return Database(settings.database, connections=2 * settings.connections + 1)
    except OSError as error:
        raise ConfigurationError(f"data_dir {settings.data_dir}: {error.strerror} ({error.filename})") from None


@contextlib.asynccontextmanager
async def build(settings: DatasetSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Open the database and the version directories, serve, and close them.

    Raises:
        ConfigurationError: The database cannot be used in its current state.
    """
    database = open_database(settings)
    # Two more connections are used for probes and for publishing.
    workers = Workers(readers=settings.connections, writers=1 if database.is_sqlite else settings.connections)
    try:
        folders = VersionFolders(settings.versions, settings.data_dir / "publishing")
        await _prepare(settings, database, readiness)
        servicer = DatasetServicer(settings, database, Publisher(database, folders), workers)
        watch_disk("data", settings.data_dir)
        if folders.directory is not None:
            watch_disk("versions", folders.directory)
        probing = asyncio.create_task(_follow(settings, database, readiness))
        try:
            yield [Registration(FULL_NAME, add_DatasetServiceServicer_to_server, servicer, CALLERS)]
        finally:
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing
    finally:
        await asyncio.to_thread(workers.close)
        database.close()


async def _prepare(settings: DatasetSettings, database: Database, readiness: Readiness) -> None:
    """Migrate SQLite, since no other process does; check PostgreSQL, and wait for it while it is unavailable."""
    deadline = asyncio.get_running_loop().time() + settings.start_wait_seconds
    while True:
        try:
            await asyncio.to_thread(migrate.upgrade if database.is_sqlite else migrate.check, database)
        except Unavailable as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise ConfigurationError(f"{error.message} (waited {settings.start_wait_seconds:g} s)") from None
            await readiness.set(False, error.message)
            await asyncio.sleep(START_RETRY_SECONDS)
        except CodeAlignError as error:
            raise ConfigurationError(f"cannot open the database: {error.message}") from None
        else:
            log.info("database_open", place=database.place, schema=migrate.head())
            DATABASE_UP.set(1)
            await readiness.set(False, "starting")  # from here on the server runs and becomes ready when it listens
            return


async def _follow(settings: DatasetSettings, database: Database, readiness: Readiness) -> None:
    """Update the readiness from the database's state, so that load balancers only use replicas that can answer."""
    clock = asyncio.get_running_loop().time
    measured = -SIZE_SECONDS
    while True:
        await asyncio.sleep(settings.probe_seconds)
        try:
            await asyncio.to_thread(database.ping)
            if clock() - measured >= SIZE_SECONDS:
                size = await asyncio.to_thread(measure, database)
                show_size(size.rows, size.size_bytes)
                measured = clock()
        except CodeAlignError as error:
            DATABASE_UP.set(0)
            await readiness.set(False, error.message)
        else:
            DATABASE_UP.set(1)
            await readiness.set(True)
