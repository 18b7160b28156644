"""Upgrades a database to this program's schema, and refuses to work with any other."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from codealign.common.errors import ConfigurationError, Internal
from codealign.dataset.storage.database import Database

# Key for pg_advisory_xact_lock; any number that no other migrations use.
_LOCK_KEY = 0x0C0DEA11


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def head() -> str:
    """Return this program's schema revision."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def revision(connection: Connection) -> str | None:
    """Return the database's schema revision, or None if it has no schema of ours."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database) -> None:
    """Upgrade the schema to `head`. Safe if several processes start at once.

    Raises:
        ConfigurationError: The database is newer than this program, or damaged.
    """

    def work(connection: Connection) -> None:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        _refuse_newer(database, revision(connection))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    # Alembic logs the kind of database at INFO before every start.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
    try:
        database.write(work)
    except Internal as error:
        raise ConfigurationError(f"cannot open the database: {error.message}") from error


def check(database: Database) -> None:
    """Check that the schema is this program's.

    Raises:
        ConfigurationError: The schema is missing, older or newer; the message says what to do.
        Unavailable: The database is unavailable.
    """
    found = database.read(revision)
    _refuse_newer(database, found)
    if found is None:
        raise ConfigurationError(f"{database.place} has no schema yet: run `codealign-dataset migrate` first")
    if found != head():
        raise ConfigurationError(
            f"{database.place} has schema {found}, but this program needs {head()}: run `codealign-dataset migrate`"
        )


def _refuse_newer(database: Database, found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigurationError(
            f"{database.place} has schema {found}, which is newer than this program ({head()}): install the release "
            "that wrote it, or point CODEALIGN_DATASET_DATABASE_URL at another database"
        )
