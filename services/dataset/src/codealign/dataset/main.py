"""`codealign-dataset [flags]` serves; `codealign-dataset migrate` upgrades the database to this release's schema."""

from __future__ import annotations

import sys

from codealign.common import logs
from codealign.common.errors import CodeAlignError, ConfigurationError
from codealign.common.server import serve
from codealign.common.settings import load
from codealign.dataset.service import build, open_database
from codealign.dataset.settings import DatasetSettings
from codealign.dataset.storage import migrate


def main() -> None:
    """Run the program."""
    if sys.argv[1:] == ["migrate"]:
        _migrate()
    else:
        serve("dataset", DatasetSettings, build)


def _migrate() -> None:
    try:
        settings = load(DatasetSettings)
        logs.configure("dataset", settings.log_level, settings.log_format)
        database = open_database(settings)
        migrate.upgrade(database)
    except (ConfigurationError, CodeAlignError) as error:
        print(f"codealign-dataset: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{database.place} has schema {migrate.head()}")


if __name__ == "__main__":
    main()
