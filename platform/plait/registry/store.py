"""The registry: open it, bring it up to date, work on it one transaction at a time, hold leases in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.engine import URL

from plait.design.errors import NotFoundError
from plait.registry import audit
from plait.registry.claims import LeaseBoard
from plait.registry.engine import explained, make_engine, make_file, parse_url, reading, sqlite_file
from plait.registry.leases import HeldLease, hold
from plait.registry.outages import outlast
from plait.registry.unit_of_work import SqlUnitOfWork
from plait.registry.upgrades import check_revision, current_revision, migrate

T = TypeVar("T")


def _say_nothing(text: str) -> None:
    """Nobody waits for words."""


class Registry:
    """A Repository in SQLite or PostgreSQL; safe to share between threads, and between processes by its URL.

    Make one by `create` or `open`.
    """

    def __init__(self, url: URL, on_outage: Callable[[str], None] = _say_nothing) -> None:
        self.url, self._on_outage = url, on_outage
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
        make_file(parsed)
        registry = cls(parsed)
        registry.upgrade()
        return registry

    @classmethod
    def open(cls, url: str, on_outage: Callable[[str], None] = _say_nothing) -> Registry:
        """Open a registry that exists; whether code and tables agree is what check_version tells.

        Args:
            url: As in `create`.
            on_outage: Told, each time anew, that `transact` tries again because the database cannot be reached.

        Raises:
            ConfigError: No such kind of database, or its driver is missing.
            NotFoundError: There is no such file.
        """
        parsed = parse_url(url)
        file = sqlite_file(parsed)
        if file is not None and not file.is_file():
            raise NotFoundError(f"there is no registry at {file}", hint="run: plait init")
        return cls(parsed, on_outage)

    def upgrade(self) -> None:
        """Bring the tables up to date; a second process waits for the first.

        Raises:
            WrongStateError: The registry was written by a newer Plait.
        """
        with explained(self.url):
            migrate(self.url)

    def downgrade(self, revision: str) -> None:
        """Bring the tables back to an older revision; this Plait then no longer opens the registry.

        Raises:
            WrongStateError: Rows would be lost.
        """
        with explained(self.url):
            migrate(self.url, revision)

    def revision(self) -> str | None:
        """The revision that the tables are at, whatever this Plait needs; None where there is no registry."""
        with explained(self.url), reading(self._engine).begin() as connection:
            return current_revision(connection)

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
            UnreachableError: PostgreSQL does not answer.
        """
        with explained(self.url), self._engine.begin() as connection:
            yield SqlUnitOfWork(connection)

    def transact(self, function: Callable[[SqlUnitOfWork], T]) -> T:
        """What `function` returns, run in a transaction: again from its beginning while the database is away.

        Up to ten minutes, with growing pauses. An answer that was lost on the way back from a commit makes a
        function run twice, so that the second run must find its own work done, or be refused.

        Raises:
            WrongStateError: Another process kept the database locked for a minute.
            UnreachableError: PostgreSQL did not come back.
        """

        def once() -> T:
            with self.begin() as uow:
                return function(uow)

        return outlast(self.url, once, self._on_outage)

    @contextmanager
    def read(self) -> Iterator[SqlUnitOfWork]:
        """A transaction that only reads: on SQLite it waits for nobody, and nobody for it.

        Raises:
            UnreachableError: PostgreSQL does not answer.
        """
        with explained(self.url), reading(self._engine).begin() as connection:
            yield SqlUnitOfWork(connection)

    def lease_board(self) -> LeaseBoard:
        """A view of all leases, which claims campaigns for a scheduler."""
        return LeaseBoard(self._engine)

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
