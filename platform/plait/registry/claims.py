"""Who holds which lease, and claims: the leases by which schedulers share campaigns among them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, select

from plait.campaign.schedules import Holding
from plait.registry.engine import explained, reading
from plait.registry.leases import TIME_TO_LIVE, HeldLease, Watch, is_dead, kept, look, taking
from plait.registry.tables import lease
from plait.registry.transaction import Transaction

CLAIM, RUN, SCHEDULER = "claim/", "campaign/", "scheduler/"
LONGEST_BETWEEN_LOOKS = 5.0
"""Seconds for which a look counts at most: one that came late proves nothing about the time before it."""


class LeaseBoard:
    """All leases, as one process has seen them over time.

    Args:
        engine: Of the registry.
        time_to_live: Seconds that a stranger's heartbeat must stand still, under this process's eyes, to be dead.
    """

    def __init__(self, engine: Engine, time_to_live: float = TIME_TO_LIVE) -> None:
        self._engine, self._time_to_live = engine, time_to_live
        self._watches: dict[str, Watch] = {}

    def look(self) -> list[Holding]:
        """Every lease that is held, by name."""
        with explained(self._engine.url), reading(self._engine).begin() as connection:
            rows = _held(connection)
        for gone in self._watches.keys() - {row.name for row in rows}:
            del self._watches[gone]
        for row in rows:
            self._watches.setdefault(row.name, Watch()).look(row, LONGEST_BETWEEN_LOOKS)
        return [
            Holding(row.name, row.host.split("/")[0], row.pid, row.taken_at, row.beat_at, self._is_living(row))
            for row in rows
        ]

    @contextmanager
    def claim(self, campaign: str) -> Iterator[HeldLease | None]:
        """The right to run a campaign's rounds, for the block; None where another has it, or too many run.

        No more campaigns run at a time than the project's limit says, counted under its lock over all schedulers.
        """
        with explained(self._engine.url):
            held = self._take(CLAIM + campaign, campaign)
        if held is None:
            yield None
            return
        with kept(held, self._time_to_live):
            yield held

    @contextmanager
    def enlist(self) -> Iterator[str]:
        """Holds the first free place among the schedulers for the block; its name."""
        number, held = 1, None
        with explained(self._engine.url):
            while (held := self._take(f"{SCHEDULER}{number}")) is None:
                number += 1
        with kept(held, self._time_to_live):
            yield held.name

    def _is_living(self, row: Row[Any]) -> bool:
        watch = self._watches.get(row.name)
        is_still = watch is not None and watch.seen == (row.token, row.heartbeat) and watch.still >= self._time_to_live
        return row.owner is not None and not is_dead(row) and not is_still

    def _take(self, name: str, campaign: str | None = None) -> HeldLease | None:
        row = look(self._engine, name)
        if self._is_living(row):
            return None
        owner = uuid.uuid4().hex
        with self._engine.begin() as connection:
            limit = Transaction(connection).lock().max_running
            if campaign is not None and limit is not None and len(self._running(connection) - {campaign}) >= limit:
                return None
            is_ours = connection.execute(taking(row, owner)).rowcount > 0
        return HeldLease(self._engine, name, owner, row.token + 1, lambda text: None) if is_ours else None

    def _running(self, connection: Connection) -> set[str]:
        living = [row.name for row in _held(connection) if self._is_living(row)]
        return {name.partition("/")[2] for name in living if name.startswith((CLAIM, RUN))}


def _held(connection: Connection) -> list[Row[Any]]:
    return list(connection.execute(select(lease).where(lease.c.owner.is_not(None)).order_by(lease.c.name)))
