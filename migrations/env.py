"""Alembic's entry point. Plait runs it with its own open connection: see plait.registry.upgrades.migrate."""

from alembic import context
from plait.registry.tables import metadata
from plait.registry.triggers import create_triggers
from plait.registry.upgrades import VERSION_TABLE, is_ours

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=is_ours,
    render_as_batch=True,
    compare_type=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
create_triggers(connection)
