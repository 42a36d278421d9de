"""Connections: one code path for SQLite (embedded) and PostgreSQL (psycopg 3)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, StatementError

from plait.design.errors import (
    ConfigError,
    CorruptArtifactError,
    NotFoundError,
    PlaitError,
    RunFailedError,
    UnreachableError,
    WrongStateError,
)
from plait.settings import redacted

BUSY_SECONDS = 60
DAMAGED = ("file is not a database", "disk image is malformed")
"""What SQLite says of a file that it cannot use."""
FULL = ("disk is full", "No space left")
"""What databases say when there is no room."""
PRAGMAS = {"journal_mode": "WAL", "synchronous": "FULL", "recursive_triggers": "ON"}
REACHING = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How soon a PostgreSQL that no packet reaches is given up (seconds; the last in milliseconds), unless the URL says."""
SERVER_LIMITS = f"SET lock_timeout = '{BUSY_SECONDS}s'; SET idle_in_transaction_session_timeout = '10min'"
"""A client that stands still, or a lock that it holds, keeps nobody else waiting for ever."""


def parse_url(url: str) -> URL:
    """The address of a registry, with the driver that Plait uses.

    Raises:
        ConfigError: Neither a SQLite file nor a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("the database URL cannot be read", hint="use sqlite:////path/plait.db") from error
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            f"a registry cannot live in '{_shown(parsed)}'",
            hint="use sqlite:////absolute/path/plait.db or postgresql://user@host/database",
        )
    return parsed


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite registry, None on PostgreSQL."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def make_file(url: URL) -> None:
    """Make the file of a SQLite registry where it is not there, for its owner alone (SQLite's own others may read).

    Raises:
        NotFoundError: Its folder does not exist or cannot be written.
    """
    if (file := sqlite_file(url)) is None:
        return
    try:
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise NotFoundError(f"{file} cannot be written: {error.strerror}", hint="make its folder") from error


def make_engine(url: URL, *, foreign_keys: bool = True) -> Engine:
    """An engine whose transactions are safe for read-modify-write.

    On SQLite every transaction is BEGIN IMMEDIATE: a second process waits up to a minute for the first.

    Args:
        url: From parse_url.
        foreign_keys: Off only while migrations rebuild tables (SQLite).

    Raises:
        ConfigError: The driver is not installed.
    """
    try:
        if sqlite_file(url) is None:
            return _postgresql(url)
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_timeout=BUSY_SECONDS)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(
            "PostgreSQL needs its driver", hint="install it: python -m pip install 'plait[postgres]'"
        ) from error
    pragmas = {**PRAGMAS, "foreign_keys": "ON" if foreign_keys else "OFF"}

    def prepare(driver_connection: Any, _record: object) -> None:
        driver_connection.isolation_level = None  # transactions are ours, not the driver's
        for name, value in pragmas.items():
            driver_connection.execute(f"PRAGMA {name}={value}")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql(url: URL) -> Engine:
    options = {name: value for name, value in REACHING.items() if name not in url.query}
    engine = create_engine(url, pool_pre_ping=True, connect_args=options)

    def prepare(driver_connection: Any, _record: object) -> None:
        driver_connection.execute(SERVER_LIMITS)
        driver_connection.commit()

    event.listen(engine, "connect", prepare)
    return engine


def _begin(connection: Connection) -> None:
    is_reading = connection.get_execution_options().get("is_reading", False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")


def reading(engine: Engine) -> Engine:
    """The same engine for transactions that only read: on SQLite they wait for nobody."""
    return engine.execution_options(is_reading=True)


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turns what a database says about its own state into errors that say what to do.

    Raises:
        UnreachableError: PostgreSQL does not answer.
        NotFoundError: The file cannot be opened.
        WrongStateError: It stayed locked for longer than a minute, or may not be written.
        RunFailedError: The disk is full.
        CorruptArtifactError: The file is no SQLite database, or a damaged one.
    """
    try:
        yield
    except StatementError as error:
        if isinstance(error.orig, PlaitError):
            raise error.orig from None
        told = _told(error, str(error.orig), url)
        if told is None:
            raise
        raise told from error
    except Exception as error:
        driver = sys.modules.get("psycopg")  # COPY is the driver's own
        if driver is None or not isinstance(error, driver.OperationalError):
            raise
        raise (_told(error, str(error), url) or _unreachable(url, str(error))) from error


def _told(error: Exception, says: str, url: URL) -> PlaitError | None:
    where = _shown(url)
    if "locked" in says or "lock timeout" in says:
        return WrongStateError(
            f"{where} is busy: another process has been writing for {BUSY_SECONDS} s", hint="try again later"
        )
    if "readonly" in says:
        return WrongStateError(f"{where} may not be written", hint="change its rights, or choose another --home")
    if any(words in says for words in FULL):
        return RunFailedError(f"the disk of {where} is full", hint="make room and run again: nothing was half written")
    if any(words in says for words in DAMAGED):
        return CorruptArtifactError(f"{where} is damaged: {says}", hint="restore it from a backup")
    if isinstance(error, OperationalError) and (error.connection_invalidated or error.statement is None):
        return _unreachable(url, says)
    return None


def _unreachable(url: URL, says: str) -> PlaitError:
    kind = NotFoundError if sqlite_file(url) else UnreachableError  # a file that is gone does not come back
    return kind(f"{_shown(url)} cannot be reached: {' '.join(says.split())}", hint="is the database running?")


def _shown(url: URL) -> str:
    """A URL without its secrets, wherever in it they are."""
    return redacted(url.render_as_string())
