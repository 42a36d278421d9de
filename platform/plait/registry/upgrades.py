"""Bringing a registry's tables up to date, and refusing one that is newer than this code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL

from plait.design.errors import NotFoundError, WrongStateError
from plait.registry._columns import metadata
from plait.registry.engine import make_engine

VERSION_TABLE = "plait_alembic_version"


def directory() -> Path:
    """Where the migrations are: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).resolve()
    installed = here.parent / "migrations"
    return installed if installed.is_dir() else here.parents[3] / "migrations"


def is_ours(name: str | None, kind: str, parents: object) -> bool:
    """Whether Alembic may look at a thing in the database: MLflow's tables, say, are nothing to compare with."""
    return kind != "table" or name in metadata.tables


def known_revisions() -> list[str]:
    """Every revision of this code, oldest first: the number that a file in versions/ begins with."""
    return sorted(path.name.split("_")[0] for path in (directory() / "versions").glob("[0-9]*_*.py"))


def taken_away(current: str, target: str) -> list[str]:
    """What each migration between two revisions brought, newest first: the first line that it says of itself."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(directory())).walk_revisions()
    return [f"{s.revision} ({s.doc})" for s in scripts if target < s.revision <= current]


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None if it holds no registry."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def check_revision(connection: Connection) -> None:
    """Passes where database and code agree.

    Raises:
        NotFoundError: The database holds no registry.
        WrongStateError: It is newer than this code, or older and not upgraded yet.
    """
    current, known = current_revision(connection), known_revisions()
    if current is None:
        raise NotFoundError("the database holds no registry", hint="run: plait init")
    refuse_newer(current)
    if current != known[-1]:
        raise WrongStateError(
            f"the registry is at version {current}, this Plait needs {known[-1]}",
            hint="bring it up to date: plait init",
        )


def refuse_newer(current: str | None) -> None:
    """Raises WrongStateError for a revision that this code does not know."""
    if current is not None and current not in known_revisions():
        raise WrongStateError(
            f"the registry was written by a newer Plait (version {current}, this one knows {known_revisions()[-1]})",
            hint="upgrade Plait: python -m pip install --upgrade plait",
        )


def migrate(url: URL, target: str = "head") -> None:
    """Move the database up (or down) to a revision, all or nothing; a second process waits for the first.

    Args:
        url: From parse_url.
        target: A revision, "head" or "base".

    Raises:
        WrongStateError: The database is newer than this code.
    """
    engine = make_engine(url, foreign_keys=False)
    try:
        with engine.begin() as connection:
            move(connection, target)
    finally:
        engine.dispose()


def move(connection: Connection, target: str) -> None:
    """The same inside an open transaction, of an engine that enforces no foreign keys on SQLite.

    Raises:
        WrongStateError: The database is newer than this code, or `target` cannot hold its rows.
    """
    from alembic import command  # heavy, and not needed where the registry is up to date
    from alembic.config import Config

    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": VERSION_TABLE})
    current = current_revision(connection)
    refuse_newer(current)
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(directory()).replace("%", "%%"))
    is_down = target == "base" or (current is not None and target != "head" and target < current)
    (command.downgrade if is_down else command.upgrade)(config, target)
    if is_sqlite:
        broken: list[Any] = list(connection.exec_driver_sql("PRAGMA foreign_key_check"))
        if broken:
            raise WrongStateError(f"the migration would leave {len(broken)} rows without what they refer to")
