"""When a campaign's rounds are computed: its standing, what it waits for, and its next time. Pure; all times UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from plait.design.errors import StoppedError

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
RESULTS_COMPLETE = "results-complete"
MAX_HOURS = 24 * 366

_AT_A_TIME = re.compile(rf"(day|{'|'.join(WEEKDAYS)})(?: (\d{{1,2}}):(\d{{2}}))?")
_HOURS = re.compile(r"(?:hour|(\d{1,4}) hours?)")


class Standing(StrEnum):
    """Whether a campaign goes on."""

    ACTIVE = "active"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FAILED = "failed"  # schedulers have given up


@dataclass(frozen=True)
class Schedule:
    """How a campaign stands with schedulers; a campaign of which nothing was said has the defaults.

    Attributes:
        campaign: Its name.
        standing: Whether it goes on.
        reason: Why it does not.
        by: Who said so.
        since: When.
        priority: Higher goes first.
        every: Rounds begin only then: "monday 09:00", "day", "12 hours"; None for as soon as they can.
        when: RESULTS_COMPLETE lets schedulers close a measured round; None leaves that to a person.
        not_before: The next round does not begin earlier.
        queued_at: When every, when and not_before were said.
        num_failures: In a row.
        failure: The last one in words.
        retry_at: The next try is not earlier.
    """

    campaign: str
    standing: Standing = Standing.ACTIVE
    reason: str = ""
    by: str | None = None
    since: datetime | None = None
    priority: int = 0
    every: str | None = None
    when: str | None = None
    not_before: datetime | None = None
    queued_at: datetime | None = None
    num_failures: int = 0
    failure: str = ""
    retry_at: datetime | None = None


def check_every(text: str) -> str:
    """The rhythm as it is kept: lower case, single blanks.

    Raises:
        ValueError: It cannot be read.
    """
    every = " ".join(text.lower().split())
    at_a_time, hours = _AT_A_TIME.fullmatch(every), _HOURS.fullmatch(every)
    if at_a_time and int(at_a_time[2] or 0) < 24 and int(at_a_time[3] or 0) < 60:
        return every
    if hours and 1 <= int(hours[1] or 1) <= MAX_HOURS:
        return every
    raise ValueError("must be a weekday or day, with a time (UTC) if wanted, or hours: monday 09:00, day, 12 hours")


def next_time(every: str, after: datetime) -> datetime:
    """The first time of a rhythm (from check_every) later than `after`; hours count from there."""
    if hours := _HOURS.fullmatch(every):
        return after + timedelta(hours=int(hours[1] or 1))
    match = _AT_A_TIME.fullmatch(every)
    if match is None:
        raise ValueError(f"{every} is no rhythm")
    time = after.replace(hour=int(match[2] or 0), minute=int(match[3] or 0), second=0, microsecond=0)
    days = 1 if match[1] == "day" else 7
    if days == 7:
        time += timedelta(days=(WEEKDAYS.index(match[1]) - time.weekday()) % 7)
    return time if time > after else time + timedelta(days=days)


def standing_in_words(schedule: Schedule) -> str:
    """Who stopped a campaign, when and why; empty for an active one."""
    if schedule.standing is Standing.ACTIVE:
        return ""
    why = f": {schedule.reason}" if schedule.reason else ""
    return f"{schedule.standing} by {schedule.by} at {schedule.since:%Y-%m-%d %H:%M} UTC{why}"


def refuse_stopped(schedule: Schedule) -> None:
    """Passes where a round may be computed; one that schedulers gave up may be by hand.

    Raises:
        StoppedError: The campaign is paused or cancelled.
    """
    refuse_cancelled(schedule)
    if schedule.standing is Standing.PAUSED:
        name = schedule.campaign
        raise StoppedError(f"'{name}' is {standing_in_words(schedule)}", hint=f"run: plait campaign resume {name}")


def refuse_cancelled(schedule: Schedule) -> None:
    """Passes where new designs may still go to the lab.

    Raises:
        StoppedError: The campaign is cancelled.
    """
    if schedule.standing is Standing.CANCELLED:
        raise StoppedError(
            f"'{schedule.campaign}' is {standing_in_words(schedule)}",
            hint="results of an ordered round can still come in; for new designs create another campaign",
        )


@dataclass(frozen=True)
class Retrying:
    """How failures are answered.

    Attributes:
        max_failures: In a row, until a campaign is given up.
        first_pause: Seconds before the second try; each pause is twice the one before.
        longest_pause: Seconds.
    """

    max_failures: int = 3
    first_pause: float = 30.0
    longest_pause: float = 3600.0

    def pause(self, num_failures: int) -> timedelta | None:
        """How long to wait after so many failures in a row; None to give up."""
        if num_failures >= self.max_failures:
            return None
        return timedelta(seconds=min(self.first_pause * 2 ** (num_failures - 1), self.longest_pause))


@dataclass(frozen=True)
class Holding:
    """A lease that somebody holds.

    Attributes:
        name: Such as "campaign/brca2", "claim/brca2" (a scheduler runs it) or "scheduler/1".
        host: Of the owner.
        pid: Its process.
        since: When it took the lease, by its own clock.
        heard_at: Its last heartbeat, by the database's clock.
        is_living: False where the owner is known to be gone, or has been watched standing still for too long.
    """

    name: str
    host: str
    pid: int
    since: datetime
    heard_at: datetime | None
    is_living: bool
