"""How campaigns stand with schedulers, the project's limit, and the database's clock."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, type_coerce, update

from plait.campaign.schedules import Schedule, Standing
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._campaigns import campaign_id
from plait.registry._columns import UtcDateTime
from plait.registry.transaction import Transaction


def clock(tx: Transaction) -> datetime:
    """The time by the database's clock, one for all hosts (to the second on SQLite)."""
    told: datetime = tx.connection.execute(select(type_coerce(func.now(), UtcDateTime))).scalar_one()
    return told


def schedules(tx: Transaction) -> dict[str, Schedule]:
    """Every campaign's, by name, oldest campaign first."""
    query = (
        select(t.campaign.c.name.label("campaign"), t.actor.c.name.label("by"), t.schedule)
        .select_from(t.campaign.outerjoin(t.schedule).outerjoin(t.actor, t.actor.c.id == t.schedule.c.standing_by))
        .where(t.campaign.c.project_id == tx.project_id)
        .order_by(t.campaign.c.id)
    )
    return {row.campaign: _record(row) for row in tx.rows(query)}


def schedule(tx: Transaction, campaign: str, *, is_locking: bool = False) -> Schedule:
    """One campaign's; under the project's lock, where it is about to be changed.

    Raises:
        NotFoundError: No such campaign.
    """
    if is_locking:
        tx.lock()
    campaign_id(tx, campaign)
    return schedules(tx)[campaign]


def _record(row: Row[Any]) -> Schedule:
    if row.standing is None:
        return Schedule(row.campaign)
    return Schedule(
        campaign=row.campaign,
        standing=Standing(row.standing),
        reason=row.reason,
        by=row.by,
        since=row.standing_at,
        priority=row.priority,
        every=row.every,
        when=row.event,
        not_before=row.not_before,
        queued_at=row.queued_at,
        num_failures=row.num_failures,
        failure=row.failure,
        retry_at=row.retry_at,
    )


def put_schedule(tx: Transaction, new: Schedule, action: str, actor: str) -> Schedule:
    """Keep a schedule that was read under the lock and changed; what changed goes into the audit trail as `action`.

    `by` and `since` are set where the standing or its reason changes, queued_at where its times do.

    Raises:
        NotFoundError: No such campaign.
    """
    old, now = schedule(tx, new.campaign, is_locking=True), clock(tx)
    by, since, queued_at = old.by or actor, old.since or now, old.queued_at
    if (new.standing, new.reason) != (old.standing, old.reason):
        by, since = actor, now
    if (new.every, new.when, new.not_before) != (old.every, old.when, old.not_before):
        queued_at = now
    values = {
        "standing": new.standing,
        "reason": new.reason,
        "standing_by": tx.actor_id(by),
        "standing_at": since,
        "priority": new.priority,
        "every": new.every,
        "event": new.when,
        "not_before": new.not_before,
        "queued_at": queued_at,
        "num_failures": new.num_failures,
        "failure": new.failure,
        "retry_at": new.retry_at,
    }
    key = campaign_id(tx, new.campaign)
    if old.by is None:
        tx.connection.execute(insert(t.schedule).values(campaign_id=key, **values))
    else:
        tx.connection.execute(update(t.schedule).where(t.schedule.c.campaign_id == key).values(**values))
    before = asdict(old)
    changed = {name: value for name, value in asdict(new).items() if value != before[name]}
    changed = {name: str(value) if isinstance(value, datetime) else value for name, value in changed.items()}
    audit.record(tx, actor, action, f"campaign/{new.campaign}", changed)
    return schedule(tx, new.campaign)


def max_running(tx: Transaction) -> int | None:
    """Rounds that all schedulers together run at a time; None for no limit."""
    found: int | None = tx.rows(select(t.project.c.max_running).where(t.project.c.id == tx.project_id))[0].max_running
    return found


def set_max_running(tx: Transaction, number: int | None, actor: str) -> None:
    """Set or lift the limit."""
    tx.lock()
    tx.connection.execute(update(t.project).where(t.project.c.id == tx.project_id).values(max_running=number))
    audit.record(tx, actor, "project.limited", "project", {"max_running": number})
