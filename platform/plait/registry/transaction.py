"""One open transaction: its connection, its project and the look-ups that every change shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, func, insert, select, text

from plait.design.errors import NotFoundError
from plait.registry.tables import actor, project

PROJECT = "default"
SYSTEM = "plait"
"""Who acts where no person does: the platform itself, going through a round's stages."""

SHOWN = 20


class Transaction:
    """What the functions of this room work on.

    Attributes:
        connection: Open, inside a transaction that the registry commits or rolls back.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._actors: dict[str, int] = {}

    @cached_property
    def project_id(self) -> int:
        """The project that everything in this transaction belongs to."""
        return int(self.connection.execute(select(project.c.id).where(project.c.name == PROJECT)).scalar_one())

    @property
    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.now(UTC)

    def lock(self) -> Row[Any]:
        """The project's row, locked to the end of the transaction: one writer at a time (SQLite has only one)."""
        query = select(project).where(project.c.id == self.project_id).with_for_update()
        return self.connection.execute(query).one()

    def actor_id(self, name: str) -> int:
        """The key of an actor, who is registered at the first act."""
        if name not in self._actors:
            self._actors[name] = self.find_or_insert(actor, {"name": name}, {"created_at": self.now})
        return self._actors[name]

    def by(self, name: str) -> dict[str, Any]:
        """Who makes a row, and when."""
        return {"created_by": self.actor_id(name), "created_at": self.now}

    def rows(self, query: Any) -> Sequence[Row[Any]]:
        """All rows of a query."""
        found: Sequence[Row[Any]] = self.connection.execute(query).all()
        return found

    def first(self, query: Any) -> Row[Any] | None:
        """The first row of a query, if any."""
        found: Row[Any] | None = self.connection.execute(query).first()
        return found

    def insert(self, table: Table, values: dict[str, Any]) -> int:
        """A new row; its key."""
        return int(self.connection.execute(insert(table).values(values).returning(table.c.id)).scalar_one())

    def find_or_insert(self, table: Table, identity: dict[str, Any], rest: dict[str, Any]) -> int:
        """The key of the row with this identity, made now if it is new (call under `lock`)."""
        where = and_(*(table.c[name] == value for name, value in identity.items()))
        found = self.first(select(table.c.id).where(where))
        return self.insert(table, {**identity, **rest}) if found is None else int(found.id)

    def insert_many(self, table: Table, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Many new rows by the fastest way of the database (COPY on PostgreSQL); their keys, in order."""
        if not rows:
            return []
        keys = self._reserve(table, len(rows)) if "id" in table.c else []
        full = [{"id": key, **row} for key, row in zip(keys, rows, strict=True)] if keys else rows
        bulk_insert(self.connection, table, list(full[0]), [list(row.values()) for row in full])
        return keys

    def _reserve(self, table: Table, number: int) -> list[int]:
        if self.connection.dialect.name == "sqlite":  # the only writer, and these rows are never deleted
            last = self.connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one()
            return list(range(last + 1, last + 1 + number))
        query = text("SELECT nextval(pg_get_serial_sequence(:name, 'id')) FROM generate_series(1, :number)")
        return list(self.connection.execute(query, {"name": f'"{table.name}"', "number": number}).scalars())


def bulk_insert(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Many new rows by the fastest way of the database: COPY on PostgreSQL.

    Args:
        connection: Inside a transaction.
        table: Where to.
        names: Its columns, in the order of the values.
        rows: Their values, as Python holds them; at least one row.
    """
    dialect, columns = connection.dialect, ", ".join(names)
    values: list[Sequence[Any]] = []
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        process = table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        values.append(column if process is None else [process(value) for value in column])
    lines = list(zip(*values, strict=True))
    if dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        connection.exec_driver_sql(f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks})', lines)  # noqa: S608
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({columns}) FROM STDIN') as copy:
        for line in lines:
            copy.write_row(line)


def missing(kind: str, name: object, known: Iterable[object]) -> NotFoundError:
    """The error for a thing that is not there, with what is."""
    names = [str(k) for k in known]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    hint = f"known: {', '.join(names[:SHOWN])}{more}" if names else f"there is no {kind} yet"
    return NotFoundError(f"there is no {kind} '{name}'", hint=hint)
