"""Whether a registry is sound: its tables, its triggers, its rows and its audit trail; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from plait.design.errors import PlaitError
from plait.registry import audit, upgrades
from plait.registry._columns import metadata
from plait.registry.engine import explained, make_engine, parse_url, reading
from plait.registry.triggers import existing_triggers, wanted_triggers


@dataclass(frozen=True)
class Finding:
    """What one look found: what was looked at, what was found, and whether that is right."""

    check: str
    found: str
    is_sound: bool


def check_registry(url: str) -> list[Finding]:
    """Look at everything that can be wrong with a registry.

    Revision, tables against the code (no drift), triggers, SQLite's own integrity check, rows that refer to nothing,
    and the audit trail. Where the revision does not fit, nothing else is looked at.

    Raises:
        NotFoundError: The database cannot be reached.
        CorruptArtifactError: The file is no database.
    """
    parsed = parse_url(url)
    engine = make_engine(parsed)
    try:
        with explained(parsed), reading(engine).begin() as connection:
            revision = _revision(connection)
            if not revision.is_sound:
                return [revision]
            return [revision, _tables(connection), _triggers(connection), *_storage(connection), _audit(connection)]
    finally:
        engine.dispose()


def _revision(connection: Connection) -> Finding:
    try:
        upgrades.check_revision(connection)
    except PlaitError as error:
        return Finding("revision", error.message, False)
    return Finding("revision", str(upgrades.current_revision(connection)), True)


def _tables(connection: Connection) -> Finding:
    from alembic.autogenerate import compare_metadata  # heavy
    from alembic.migration import MigrationContext

    options = {"version_table": upgrades.VERSION_TABLE, "compare_type": True, "include_name": upgrades.is_ours}
    drift = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    if drift:
        return Finding("tables", f"{len(drift)} differ from this Plait's, the first: {drift[0]!s:.200}", False)
    return Finding("tables", f"{len(metadata.tables)} tables as they should be", True)


def _triggers(connection: Connection) -> Finding:
    missing = sorted(wanted_triggers(connection) - existing_triggers(connection))
    if missing:
        return Finding("triggers", f"rows may be changed after the fact: {', '.join(missing)} missing", False)
    return Finding("triggers", "append-only tables are protected", True)


def _storage(connection: Connection) -> list[Finding]:
    """What SQLite can say of its file; PostgreSQL checks references itself and its disk on its own."""
    if connection.dialect.name != "sqlite":
        return []
    said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    lost = list(connection.exec_driver_sql("PRAGMA foreign_key_check"))
    found = f"{len(lost)} rows refer to nothing, the first in {lost[0][0]}" if lost else "every reference is met"
    return [Finding("file", said[0], said == ["ok"]), Finding("references", found, not lost)]


def _audit(connection: Connection) -> Finding:
    try:
        number = audit.verify(connection)
    except PlaitError as error:
        return Finding("audit trail", error.message, False)
    return Finding("audit trail", f"{number:,} events in one chain", True)
