"""Going on after the database was away for a while: a restart of PostgreSQL, a failover, a network that broke."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import URL

from plait.design.errors import UnreachableError
from plait.registry.engine import explained

PATIENCE = 600.0
"""Seconds that work waits for a database that cannot be reached."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds between two tries; each pause is twice the one before."""

T = TypeVar("T")


def outlast(url: URL, work: Callable[[], T], on_outage: Callable[[str], None], patience: float = PATIENCE) -> T:
    """The result of `work`, done again from its beginning for as long as the database cannot be reached.

    An answer may be lost after the database has committed, and then `work` runs twice: the second run must change
    nothing more, or be refused.

    Args:
        url: Of the database, from parse_url.
        work: Opens its own transaction.
        on_outage: Told before each further try.
        patience: Seconds from the first failure until giving up.

    Raises:
        UnreachableError: The database did not come back in time.
    """
    pause, since = FIRST_PAUSE, 0.0
    while True:
        try:
            with explained(url):
                return work()
        except UnreachableError:
            since = since or time.monotonic()
            if time.monotonic() - since + pause > patience:
                raise
        on_outage("the database cannot be reached, trying again")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
