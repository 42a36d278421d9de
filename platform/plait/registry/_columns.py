"""What tables are made of: names, columns, checks, and types that refuse what a database would change silently."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

from plait.design.errors import BadInputError

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

LARGEST = "1.7976931348623157e308"
"""The largest float64."""

Id = BigInteger().with_variant(Integer(), "sqlite")
"""Keys: 64 bits on both databases (SQLite's INTEGER is)."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, timezone-aware in Python and UTC in the database (SQLite would drop the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise BadInputError(f"the time {value} has no timezone", hint="give one, such as UTC")
        try:
            moment = value.astimezone(UTC)
        except OverflowError:
            raise BadInputError(f"the time {value} is none in UTC", hint="give one of the years 1 to 9999") from None
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From the database."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Finite(TypeDecorator[float]):
    """A float64 that is a number: NaN would become NULL on SQLite and stay NaN on PostgreSQL."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """To the database."""
        if value is not None and not math.isfinite(value):
            raise BadInputError(f"{value} cannot be stored as a value", hint="give a finite number")
        return value


def where(name: str, *columns: str, condition: str, unique: bool = False) -> Index:
    """An index over the rows that fulfil the condition only: bulk rows that do not are not slowed down."""
    return Index(name, *columns, unique=unique, sqlite_where=text(condition), postgresql_where=text(condition))


class Document(TypeDecorator[Any]):
    """A JSON document, without NaN (which is no JSON, though Python writes it)."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """To the database."""
        return as_json(value)


def as_json(value: Any) -> Any:
    """The document as it will be read back: tuples are lists, keys are text.

    Raises:
        BadInputError: It holds NaN or an infinity.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except ValueError as error:
        raise BadInputError(f"a document cannot be stored: {error}") from error


def key() -> Column[int]:
    """The primary key `id`."""
    return Column("id", Id, primary_key=True)


def of(table: str, name: str | None = None, *, optional: bool = False) -> Column[int]:
    """A reference to a row of another table, called TABLE_id by default."""
    return Column(name or f"{table}_id", Id, ForeignKey(f"{table}.id"), nullable=optional)


def nth_of(table: str, name: str | None = None) -> tuple[Column[int], Column[int]]:
    """The primary key of a row that is the n-th of something in a row of another table."""
    owner = Column(name or f"{table}_id", Id, ForeignKey(f"{table}.id"), primary_key=True, autoincrement=False)
    return owner, Column("position", Integer, primary_key=True, autoincrement=False)


def moment(name: str = "created_at", *, optional: bool = False) -> Column[Any]:
    """A time."""
    return Column(name, UtcDateTime, nullable=optional)


def by() -> tuple[Column[int], Column[Any]]:
    """Who made the row, and when."""
    return of("actor", "created_by"), moment()


def words(name: str = "name", *, optional: bool = False) -> Column[str]:
    """Text of any length."""
    return Column(name, Text, nullable=optional)


def sha(name: str) -> Column[str]:
    """A SHA-256 in 64 hex digits."""
    return Column(name, String(64), nullable=False)


def count(name: str) -> Column[int]:
    """A whole number of 32 bits."""
    return Column(name, Integer, nullable=False)


def document(name: str) -> Column[Any]:
    """A JSON document."""
    return Column(name, Document, nullable=False)


def number(name: str, *, optional: bool = False) -> Column[Any]:
    """A finite float64."""
    return Column(name, Finite, nullable=optional)


def is_one_of(name: str, values: Iterable[str]) -> CheckConstraint:
    """The column holds one of these."""
    return CheckConstraint(f"{name} IN ({', '.join(repr(str(v)) for v in values)})", name=name)


def is_finite(name: str) -> CheckConstraint:
    """The column holds a number (PostgreSQL: NaN = NaN, and NaN is above everything)."""
    return CheckConstraint(f"{name} = {name} AND {name} BETWEEN -{LARGEST} AND {LARGEST}", name=f"{name}_finite")
