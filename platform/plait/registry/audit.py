"""The audit trail: append-only events, each holding the hash of the one before."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from plait.design.errors import RunFailedError
from plait.registry._columns import as_json
from plait.registry.tables import actor, audit_event, project
from plait.registry.transaction import PROJECT, Transaction

GENESIS = "0" * 64
"""What the first event follows."""


def record(tx: Transaction, actor_name: str, action: str, subject: str, details: dict[str, Any] | None = None) -> None:
    """Append an event: `actor_name` did `action` to `subject`.

    Args:
        tx: The transaction that also holds the change itself.
        actor_name: Who.
        action: Such as "round.approved".
        subject: Such as "campaign/brca2/round/1".
        details: A JSON object.
    """
    head = tx.lock()
    number, now = head.audit_number + 1, tx.now
    known = as_json(details or {})
    hash_ = event_hash(number, actor_name, action, subject, known, now, head.audit_hash)
    tx.connection.execute(
        insert(audit_event).values(
            project_id=tx.project_id,
            number=number,
            actor_id=tx.actor_id(actor_name),
            action=action,
            subject=subject,
            details=known,
            created_at=now,
            prev_hash=head.audit_hash,
            hash=hash_,
        )
    )
    tx.connection.execute(
        update(project).where(project.c.id == tx.project_id).values(audit_number=number, audit_hash=hash_)
    )


def event_hash(
    number: int,
    actor_name: str,
    action: str,
    subject: str,
    details: dict[str, Any],
    created_at: datetime,
    prev_hash: str,
) -> str:
    """SHA-256 over everything an event says and the hash of the event before."""
    moment = created_at.astimezone(UTC).isoformat(timespec="microseconds")
    fields = [number, actor_name, action, subject, details, moment, prev_hash]
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verify(connection: Connection, project_name: str = PROJECT) -> int:
    """Walks a project's chain; returns the number of events.

    Raises:
        RunFailedError: An event was edited, inserted or taken out; the first one is named.
    """
    head = connection.execute(select(project).where(project.c.name == project_name)).one()
    query = (
        select(audit_event, actor.c.name.label("actor_name"))
        .join_from(audit_event, actor, audit_event.c.actor_id == actor.c.id)
        .where(audit_event.c.project_id == head.id)
        .order_by(audit_event.c.number)
    )
    number, last = 0, GENESIS
    for e in connection.execute(query):
        number += 1
        if e.number != number:
            raise _broken(number, "is missing")
        wanted = event_hash(e.number, e.actor_name, e.action, e.subject, e.details, e.created_at, last)
        if e.prev_hash != last or e.hash != wanted:
            raise _broken(number, "was changed after it was written")
        last = e.hash
    if (number, last) != (head.audit_number, head.audit_hash):
        raise _broken(number + 1, "is missing")
    return number


def _broken(number: int, what: str) -> RunFailedError:
    return RunFailedError(
        f"the audit trail is broken: event {number} {what}", hint="restore the registry from a backup and compare"
    )
