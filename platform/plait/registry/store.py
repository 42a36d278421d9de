"""The registry: open it, bring it up to date, work on it one transaction at a time, hold leases in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL

from plait.design.errors import NotFoundError
from plait.registry import audit
from plait.registry.engine import explained, make_engine, parse_url, reading, sqlite_file
from plait.registry.leases import HeldLease, hold
from plait.registry.unit_of_work import SqlUnitOfWork
from plait.registry.upgrades import check_revision, migrate


class Registry:
    """A Repository in SQLite or PostgreSQL; safe to share between threads, and between processes by its URL.

    Make one by `create` or `open`.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = make_engine(url)

    @classmethod
    def create(cls, url: str) -> Registry:
        """Open a registry, made or brought up to date first; safe to repeat and to run twice at once.

        Args:
            url: sqlite:////absolute/path/plait.db or postgresql://...

        Raises:
            ConfigError: No such kind of database, or its driver is missing.
            NotFoundError: The folder of the file does not exist, or the server cannot be reached.
            WrongStateError: It was written by a newer Plait.
        """
        parsed = parse_url(url)
        if (file := sqlite_file(parsed)) is not None:
            try:
                os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's own would be readable by others
            except OSError as error:
                raise NotFoundError(f"{file} cannot be written: {error.strerror}", hint="make its folder") from error
        registry = cls(parsed)
        registry.upgrade()
        return registry

    @classmethod
    def open(cls, url: str) -> Registry:
        """Open a registry that exists; whether code and tables agree is what check_version tells.

        Raises:
            ConfigError: No such kind of database, or its driver is missing.
            NotFoundError: There is no such file.
        """
        parsed = parse_url(url)
        file = sqlite_file(parsed)
        if file is not None and not file.is_file():
            raise NotFoundError(f"there is no registry at {file}", hint="run: plait init")
        return cls(parsed)

    def upgrade(self) -> None:
        """Bring the tables up to date; a second process waits for the first.

        Raises:
            WrongStateError: The registry was written by a newer Plait.
        """
        with explained(self.url):
            migrate(self.url)

    def check_version(self) -> None:
        """Passes where code and tables agree.

        Raises:
            NotFoundError: The database holds no registry.
            WrongStateError: It is newer than this code, or older and not upgraded.
        """
        with explained(self.url), reading(self._engine).begin() as connection:
            check_revision(connection)

    @contextmanager
    def begin(self) -> Iterator[SqlUnitOfWork]:
        """A transaction: commits at the end of the block, rolls back on any exception.

        Raises:
            WrongStateError: Another process kept the database locked for a minute.
        """
        with explained(self.url), self._engine.begin() as connection:
            yield SqlUnitOfWork(connection)

    @contextmanager
    def lease(self, name: str, on_wait: Callable[[str], None]) -> Iterator[HeldLease]:
        """Holds the lease `name`; waits (saying so once) while a living owner holds it."""
        with explained(self.url), hold(self._engine, name, on_wait) as held:
            yield held

    def verify_audit(self) -> int:
        """Walks the audit trail; the number of events.

        Raises:
            RunFailedError: An event was edited or taken out.
        """
        with explained(self.url), reading(self._engine).begin() as connection:
            return audit.verify(connection)

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()
