"""Run by Alembic with the connection of `codealign.dataset.storage.migrate`."""

from __future__ import annotations

from alembic import context

from codealign.dataset.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
