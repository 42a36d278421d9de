"""Fenced leases: one owner at a time, told apart by a token that only grows.

A lease is a row, taken by a conditional UPDATE. Its owner counts up a heartbeat from a thread of its own. No clock of
another machine is believed: a contender takes the lease over after it has itself watched the heartbeat stand still
for the time to live, or at once if the owner was a process of this host that is gone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Row, Update, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from plait.campaign.repository import Lease
from plait.design.errors import PlaitError, WrongStateError
from plait.registry.engine import reading
from plait.registry.outages import outlast
from plait.registry.tables import lease
from plait.registry.transaction import Transaction

TIME_TO_LIVE = 30.0
"""Seconds that a heartbeat must stand still before a stranger's lease is taken over."""

POLL = 0.5
"""Seconds between two looks at a lease that another one holds."""

RELEASE_PATIENCE = 5.0
"""Seconds for giving a lease back where the database is away; one that stays stands still and is taken over."""


def host_identity() -> str:
    """Names the host whose process numbers this process sees (machine, boot and container)."""
    parts = [socket.gethostname()]
    if sys.platform == "linux":
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def process_started(pid: int) -> str | None:
    """When a process of this host started, as the system writes it; None if it is gone (or only waits to be buried)."""
    if sys.platform != "linux":
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None  # noqa: S603
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def lost(name: str) -> WrongStateError:
    """What a process is told that is not the owner any more."""
    return WrongStateError(f"the lease on '{name}' was lost to another process", hint="run again to go on")


class HeldLease:
    """A lease that was won.

    Attributes:
        name: What is held.
        token: Grows with every owner; a lower one is stale.
    """

    def __init__(self, engine: Engine, name: str, owner: str, token: int, on_wait: Callable[[str], None]) -> None:
        self.name, self.token = name, token
        self._engine, self._owner, self._on_wait = engine, owner, on_wait

    @property
    def _is_ours(self) -> Any:
        return (lease.c.name == self.name) & (lease.c.token == self.token) & (lease.c.owner == self._owner)

    def check(self) -> None:
        """Passes while the lease is held; waits for a database that is away.

        Raises:
            WrongStateError: Another process has taken it over.
            UnreachableError: The database did not come back.
        """
        outlast(self._engine.url, self._check, self._on_wait)

    def _check(self) -> None:
        with reading(self._engine).begin() as connection:
            if connection.execute(select(lease.c.token).where(self._is_ours)).first() is None:
                raise lost(self.name)

    def beat(self) -> bool:
        """Count up the heartbeat; False if the lease was lost."""
        query = update(lease).where(self._is_ours).values(heartbeat=lease.c.heartbeat + 1, beat_at=func.now())
        with self._engine.begin() as connection:
            return connection.execute(query).rowcount > 0

    def release(self) -> None:
        """Give it back; nothing happens if it was lost.

        Raises:
            UnreachableError: The database is away; the lease stands still and is taken over after its time to live.
        """
        outlast(self._engine.url, self._release, self._on_wait, RELEASE_PATIENCE)

    def _release(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(lease).where(self._is_ours).values(owner=None))


def fence(tx: Transaction, held: Lease) -> None:
    """Lets a transaction commit only while a lease is held: its row stays locked until then, so nobody takes it over.

    Raises:
        WrongStateError: Another process has taken it over.
    """
    is_ours = (lease.c.name == held.name) & (lease.c.token == held.token) & lease.c.owner.is_not(None)
    if tx.first(select(lease.c.token).where(is_ours).with_for_update(read=True)) is None:
        raise lost(held.name)


@contextmanager
def hold(
    engine: Engine, name: str, on_wait: Callable[[str], None], time_to_live: float = TIME_TO_LIVE, poll: float = POLL
) -> Iterator[HeldLease]:
    """Holds the lease `name` for the block; waits while a living owner holds it.

    Args:
        engine: Of the registry.
        name: What to hold, such as "campaign/brca2".
        on_wait: Told in one sentence what is waited for: once for an owner, at each try for the database.
        time_to_live: Seconds of silence after which an owner elsewhere counts as dead.
        poll: Seconds between two looks.
    """
    held = _acquire(engine, name, on_wait, time_to_live, poll)
    with kept(held, time_to_live):
        yield held


@contextmanager
def kept(held: HeldLease, time_to_live: float = TIME_TO_LIVE) -> Iterator[None]:
    """Keeps a lease that was won for the block, and gives it back."""
    stop = threading.Event()
    thread = threading.Thread(target=_keep_beating, args=(held, stop, time_to_live / 6), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(PlaitError):  # what the block says comes first
            held.release()


def _keep_beating(held: HeldLease, stop: threading.Event, interval: float) -> None:
    while not stop.wait(interval):
        try:
            if not held.beat():
                return
        except SQLAlchemyError:
            continue  # busy or away; check() tells whether the lease outlived it


@dataclass
class Watch:
    """How long this process has itself seen a lease stand still."""

    seen: tuple[int, int] | None = None
    at: float = 0.0
    still: float = 0.0

    def look(self, row: Row[Any], most: float) -> float:
        """Seconds of stillness; a look that came late (the database was busy) counts for `most` at most."""
        now, state = time.monotonic(), (row.token, row.heartbeat)
        self.still = self.still + min(now - self.at, most) if state == self.seen else 0.0
        self.seen, self.at = state, now
        return self.still


def _acquire(engine: Engine, name: str, on_wait: Callable[[str], None], time_to_live: float, poll: float) -> HeldLease:
    watch, has_said, owner = Watch(), False, uuid.uuid4().hex
    while True:
        row = outlast(engine.url, partial(look, engine, name), on_wait)
        if row.owner == owner:  # the answer to taking it was lost
            return HeldLease(engine, name, owner, row.token, on_wait)
        if row.owner is None or is_dead(row) or watch.look(row, 2 * poll) >= time_to_live:
            if outlast(engine.url, partial(_take, engine, row, owner), on_wait):
                return HeldLease(engine, name, owner, row.token + 1, on_wait)
        elif not has_said:
            has_said = True
            on_wait(
                f"{name} is held by process {row.pid} on {row.host.split('/')[0]} since {row.taken_at:%H:%M:%S} UTC"
            )
        time.sleep(poll)


def look(engine: Engine, name: str) -> Row[Any]:
    """A lease as it stands; made now if nobody ever held it."""
    dialect = sqlite if engine.dialect.name == "sqlite" else postgresql
    query = select(lease).where(lease.c.name == name)
    with reading(engine).begin() as connection:
        row = connection.execute(query).first()
    if row is not None:
        return row
    with engine.begin() as connection:
        connection.execute(dialect.insert(lease).values(name=name, token=0, heartbeat=0).on_conflict_do_nothing())
        return connection.execute(query).one()


def is_dead(row: Row[Any]) -> bool:
    """Whether the owner was a process of this host that is gone."""
    is_here: bool = row.host == host_identity()
    return is_here and process_started(row.pid) != row.process_started


def _take(engine: Engine, seen: Row[Any], owner: str) -> bool:
    """Take the lease, if it is still as it was seen."""
    with engine.begin() as connection:
        return connection.execute(taking(seen, owner)).rowcount > 0


def taking(seen: Row[Any], owner: str) -> Update:
    """What takes a lease for this process, if it is still as it was seen."""
    pid = os.getpid()
    as_seen = (lease.c.name == seen.name) & (lease.c.token == seen.token) & (lease.c.heartbeat == seen.heartbeat)
    as_seen &= lease.c.owner.is_(None) if seen.owner is None else lease.c.owner == seen.owner
    return (
        update(lease)
        .where(as_seen)
        .values(
            owner=owner,
            token=seen.token + 1,
            heartbeat=0,
            host=host_identity(),
            pid=pid,
            process_started=process_started(pid),
            taken_at=datetime.now(UTC),
            beat_at=func.now(),
        )
    )
