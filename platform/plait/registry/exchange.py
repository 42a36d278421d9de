"""A whole registry as one portable file, and back: JSON lines, one member of a zip a table, and a manifest.

Every value returns bit by bit on either database: floats as their shortest text that reads back equal, times in UTC
to the microsecond, documents with their keys in order. Leases stay behind: they belong to running processes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice, zip_longest
from typing import Any
from zipfile import BadZipFile, ZipFile

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    literal,
    select,
    text,
)

from plait.design.errors import BadInputError, CorruptArtifactError, WrongStateError
from plait.registry import audit, upgrades
from plait.registry._columns import Document, Finite, Id, UtcDateTime, metadata
from plait.registry.engine import explained, make_engine, make_file, parse_url, reading, sqlite_file
from plait.registry.transaction import bulk_insert

FORMAT = "plait registry 1"
MANIFEST = "manifest.json"
LEFT_BEHIND = ("lease",)
"""Tables that say nothing once the processes are gone."""
ROWS_AT_ONCE = 5_000
KINDS: dict[str, Any] = {
    "integer": Id,
    "number": Finite(),
    "text": Text(),
    "boolean": Boolean(),
    "time": UtcDateTime(),
    "document": Document(),
}
"""What columns hold, by the word for it in a manifest."""


@dataclass(frozen=True)
class TableContents:
    """The rows of a table: the kind of each column by its name, and SHA-256 over the lines in order of their keys."""

    name: str
    columns: dict[str, str]
    num_rows: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What a file holds: the revision of its tables, and the tables, referred ones first."""

    revision: str
    tables: tuple[TableContents, ...]

    @property
    def num_rows(self) -> int:
        """Rows of all tables."""
        return sum(table.num_rows for table in self.tables)


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """A transaction that sees the registry as it is now, whatever is written meanwhile, and keeps nobody waiting.

    Raises:
        NotFoundError: It cannot be reached or holds no registry.
        WrongStateError: It is newer or older than this code.
    """
    parsed = parse_url(url)
    engine = make_engine(parsed)
    options: dict[str, Any] = {"is_reading": True}
    if engine.dialect.name == "postgresql":  # SQLite's transactions see one state anyway
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    try:
        with explained(parsed), engine.execution_options(**options).begin() as connection:
            upgrades.check_revision(connection)
            yield connection
    finally:
        engine.dispose()


def write_tables(connection: Connection, archive: ZipFile) -> Contents:
    """Write every table into an open zip, in bounded memory, and the manifest last.

    Args:
        connection: From snapshot.
        archive: Open for writing.
    """
    tables = [_write(connection, table, archive) for table in _exchanged()]
    contents = Contents(str(upgrades.current_revision(connection)), tuple(tables))
    archive.writestr(MANIFEST, json.dumps({"format": FORMAT, **asdict(contents)}, indent=1))
    return contents


def read_contents(archive: ZipFile) -> Contents:
    """What a file says that it holds.

    Raises:
        BadInputError: It is no export of a registry.
    """
    try:
        document = json.loads(archive.read(MANIFEST))
        if document["format"] != FORMAT:
            raise ValueError(document["format"])
        return Contents(document["revision"], tuple(TableContents(**table) for table in document["tables"]))
    except (KeyError, TypeError, ValueError, RecursionError, BadZipFile) as error:
        raise BadInputError(
            f"{archive.filename} is no registry that Plait has written", hint="make one with: plait db export FILE"
        ) from error


def read_tables(url: str, archive: ZipFile) -> Contents:
    """Fill an empty registry from an open zip: all of it, compared row by row with what was written, or nothing.

    A file of an older Plait is read into the tables of its time, which are then brought up to date.

    Args:
        url: Of the database, which holds no registry yet, or one without rows.
        archive: As write_tables made it.

    Raises:
        BadInputError: It is no export of a registry.
        CorruptArtifactError: It was changed after it was written, or the database does not give back what it was given.
        WrongStateError: The registry has rows already, or the file is of a newer Plait.
    """
    contents, parsed = read_contents(archive), parse_url(url)
    upgrades.refuse_newer(contents.revision)
    make_file(parsed)
    engine = make_engine(parsed, foreign_keys=False)
    try:
        with explained(parsed), engine.begin() as connection:
            _refuse_rows(connection)
            upgrades.move(connection, contents.revision)
            connection.execute(text("DELETE FROM project"))  # the first migration has put one there
            for facts in contents.tables:
                _read(connection, facts, archive)
            upgrades.move(connection, "head")
            audit.verify(connection)
    finally:
        engine.dispose()
    return contents


def contents_of(connection: Connection) -> Contents:
    """What write_tables would write now; nothing is.

    Args:
        connection: From snapshot.
    """
    tables = [_measured(connection, table, lambda line: None) for table in _exchanged()]
    return Contents(str(upgrades.current_revision(connection)), tuple(tables))


def _exchanged() -> list[Table]:
    return [table for table in metadata.sorted_tables if table.name not in LEFT_BEHIND]


def refuse_filled(url: str) -> None:
    """Passes where read_tables has room: no registry yet, or one without rows.

    Raises:
        WrongStateError: There are rows.
    """
    parsed = parse_url(url)
    if (file := sqlite_file(parsed)) is not None and not file.exists():
        return
    engine = make_engine(parsed)
    try:
        with explained(parsed), reading(engine).begin() as connection:
            _refuse_rows(connection)
    finally:
        engine.dispose()


def _write(connection: Connection, table: Table, archive: ZipFile) -> TableContents:
    with archive.open(_member(table.name), "w", force_zip64=True) as member:
        return _measured(connection, table, member.write)


def _measured(connection: Connection, table: Table, keep: Callable[[bytes], object]) -> TableContents:
    number, digest = 0, hashlib.sha256()
    for line in _stored(connection, table):
        keep(line)
        digest.update(line)
        number += 1
    columns = {column.name: _kind(column) for column in table.columns}
    return TableContents(table.name, columns, number, digest.hexdigest())


def _kind(column: Column[Any]) -> str:
    if isinstance(column.type, String):
        return "text"
    if isinstance(column.type, Integer):
        return "integer"
    return next(kind for kind, type_ in KINDS.items() if type(column.type) is type(type_))


def _member(table: str) -> str:
    return f"{table}.jsonl"


def _stored(connection: Connection, table: Table) -> Iterator[bytes]:
    """The rows of a table in order of their keys, one line each."""
    query = select(table).order_by(*table.primary_key.columns)
    for row in connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}):
        plain = [_moment(value) if isinstance(value, datetime) else value for value in row]
        yield json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")


def _read(connection: Connection, facts: TableContents, archive: ZipFile) -> None:
    """One table into the database, and a look whether the database gives back every row as it was written."""
    table = _table(connection, facts, archive)
    lines = _lines(archive, facts)
    while chunk := list(islice(lines, ROWS_AT_ONCE)):
        bulk_insert(connection, table, list(facts.columns), [_decoded(line, facts) for line in chunk])
    for number, (written, stored) in enumerate(zip_longest(_lines(archive, facts), _stored(connection, table)), 1):
        if written != stored:
            raise CorruptArtifactError(f"the database does not give back row {number} of {facts.name} as it was")
    if connection.dialect.name == "postgresql" and "id" in facts.columns and facts.num_rows:
        last = f"pg_get_serial_sequence('\"{facts.name}\"', 'id'), (SELECT max(id) FROM \"{facts.name}\")"  # noqa: S608
        connection.exec_driver_sql(f"SELECT setval({last})")


def _table(connection: Connection, facts: TableContents, archive: ZipFile) -> Table:
    """The table as it was when the file was written; also of a revision that the code no longer describes."""
    tables = inspect(connection)
    known = {column["name"] for column in tables.get_columns(facts.name)} if tables.has_table(facts.name) else set()
    if known != set(facts.columns) or not set(facts.columns.values()) <= set(KINDS):
        raise CorruptArtifactError(f"{archive.filename} holds a table {facts.name} that its version does not have")
    keys = tables.get_pk_constraint(facts.name)["constrained_columns"]
    columns = [Column(name, KINDS[kind], primary_key=name in keys) for name, kind in facts.columns.items()]
    return Table(facts.name, MetaData(), *columns)


def _lines(archive: ZipFile, facts: TableContents) -> Iterator[bytes]:
    """The lines of a table; at the end, whether they are those that were written."""
    number, digest = 0, hashlib.sha256()
    try:
        with archive.open(_member(facts.name)) as member:
            for line in member:
                digest.update(line)
                number += 1
                yield line
    except (KeyError, BadZipFile, zlib.error, EOFError) as error:
        raise CorruptArtifactError(f"{archive.filename}: the rows of {facts.name} cannot be read") from error
    if (number, digest.hexdigest()) != (facts.num_rows, facts.sha256):
        raise CorruptArtifactError(f"{archive.filename}: the rows of {facts.name} differ from their recorded SHA-256")


def _decoded(line: bytes, facts: TableContents) -> list[Any]:
    try:
        values = zip(json.loads(line), facts.columns.values(), strict=True)
        return [datetime.fromisoformat(v) if kind == "time" and v is not None else v for v, kind in values]
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptArtifactError(f"a row of {facts.name} cannot be read: {error}") from error


def _refuse_rows(connection: Connection) -> None:
    tables = inspect(connection)
    for table in metadata.sorted_tables:
        is_free = table.name in (*LEFT_BEHIND, "project") or not tables.has_table(table.name)
        if not is_free and connection.execute(select(literal(1)).select_from(table).limit(1)).first():
            raise WrongStateError(
                f"the registry is not empty: it has rows in {table.name}", hint="import into a new database or home"
            )
