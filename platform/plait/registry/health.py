"""What a registry's database says of itself; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, text

from plait.registry.engine import explained, make_engine, parse_url, reading, sqlite_file
from plait.registry.store import Registry
from plait.registry.upgrades import current_revision

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "lustre", "glusterfs", "ceph")
"""Where SQLite's locks cannot be relied on."""


@dataclass(frozen=True)
class DatabaseHealth:
    """A database that answers and whose tables fit this Plait.

    Attributes:
        kind: "SQLite" or "PostgreSQL".
        version: Of the database program.
        revision: Of the tables.
        journal_mode: Of SQLite ("wal" is right), "" on PostgreSQL.
        network: The kind of network file system that a SQLite file lies on, "" for none.
        clock_ahead_s: Seconds that the database's clock is ahead of this machine's; 0 on SQLite.
    """

    kind: str
    version: str
    revision: str
    journal_mode: str = ""
    network: str = ""
    clock_ahead_s: float = 0.0


def examine(url: str) -> DatabaseHealth:
    """Ask a registry's database how it is.

    Raises:
        ConfigError: No such kind of database, or its driver is missing.
        NotFoundError: It cannot be reached or holds no registry.
        WrongStateError: Its tables do not fit this Plait.
        CorruptArtifactError: The file is no database.
    """
    registry = Registry.open(url)
    try:
        registry.check_version()
    finally:
        registry.close()
    parsed = parse_url(url)
    engine = make_engine(parsed)
    try:
        with explained(parsed), reading(engine).begin() as connection:
            revision = str(current_revision(connection))
            file = sqlite_file(parsed)
            return _sqlite(connection, revision, file) if file is not None else _postgresql(connection, revision)
    finally:
        engine.dispose()


def _sqlite(connection: Connection, revision: str, file: Path) -> DatabaseHealth:
    version = str(connection.execute(text("SELECT sqlite_version()")).scalar())
    journal_mode = str(connection.execute(text("PRAGMA journal_mode")).scalar())
    return DatabaseHealth("SQLite", version, revision, journal_mode, _network_file_system(file))


def _postgresql(connection: Connection, revision: str) -> DatabaseHealth:
    version = str(connection.execute(text("SHOW server_version")).scalar())
    asked = datetime.now(UTC)
    theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    ours = asked + (datetime.now(UTC) - asked) / 2
    return DatabaseHealth("PostgreSQL", version, revision, clock_ahead_s=(theirs - ours).total_seconds())


def _network_file_system(file: Path) -> str:
    """The kind of the network file system under a file, "" for a disk of this machine or where nobody can tell."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    under = [(folder, kind) for folder, kind in mounts if file.resolve().is_relative_to(folder)]
    kind = max(under, key=lambda mount: len(mount[0]), default=("", ""))[1]
    return kind if kind.startswith(NETWORK_FILE_SYSTEMS) else ""
