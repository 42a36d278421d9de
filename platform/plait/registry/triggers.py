"""Triggers that keep append-only tables append-only, on both databases.

A batch migration on SQLite rebuilds its table and loses them: migrations/env.py calls create_triggers after every run.
A migration that must change such rows calls drop_triggers first.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect

from plait.registry.tables import APPEND_ONLY

_FUNCTION = """
CREATE OR REPLACE FUNCTION plait_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$
"""


def create_triggers(connection: Connection) -> None:
    """Make (again) the triggers of every append-only table that exists."""
    drop_triggers(connection)
    is_sqlite = connection.dialect.name == "sqlite"
    tables = set(inspect(connection).get_table_names()).intersection(APPEND_ONLY)
    if tables and not is_sqlite:
        connection.exec_driver_sql(_FUNCTION.replace("%", "%%"))
    for table in sorted(tables):
        for operation in _operations(connection):
            name = f"{table}_no_{operation.lower()}"
            if is_sqlite:
                body = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                connection.exec_driver_sql(f"CREATE TRIGGER {name} BEFORE {operation} ON {table} {body}")
            else:
                call = "FOR EACH STATEMENT EXECUTE FUNCTION plait_append_only()"
                connection.exec_driver_sql(f"CREATE TRIGGER {name} BEFORE {operation} ON {table} {call}")


def wanted_triggers(connection: Connection) -> set[str]:
    """The names of the triggers that the tables which exist should have."""
    tables = set(inspect(connection).get_table_names()).intersection(APPEND_ONLY)
    return {f"{table}_no_{operation.lower()}" for table in tables for operation in _operations(connection)}


def existing_triggers(connection: Connection) -> set[str]:
    """The names of the triggers that are there and switched on."""
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if connection.dialect.name != "sqlite":
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
    return set(connection.exec_driver_sql(query).scalars())


def drop_triggers(connection: Connection) -> None:
    """Take the triggers away, for a migration that changes rows."""
    on_table = connection.dialect.name != "sqlite"
    for table in sorted(set(inspect(connection).get_table_names()).intersection(APPEND_ONLY)):
        for operation in _operations(connection):
            where = f" ON {table}" if on_table else ""
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_{operation.lower()}{where}")
    if on_table:
        connection.exec_driver_sql("DROP FUNCTION IF EXISTS plait_append_only()")


def _operations(connection: Connection) -> tuple[str, ...]:
    return ("UPDATE", "DELETE") if connection.dialect.name == "sqlite" else ("UPDATE", "DELETE", "TRUNCATE")
