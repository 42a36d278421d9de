"""How campaigns stand with schedulers: the table of it."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Table

from plait.campaign.schedules import Standing
from plait.registry._columns import Id, count, is_one_of, metadata, moment, of, words

schedule = Table(
    "schedule",
    metadata,
    Column("campaign_id", Id, ForeignKey("campaign.id"), primary_key=True, autoincrement=False),
    words("standing"),
    words("reason"),
    of("actor", "standing_by"),
    moment("standing_at"),
    count("priority"),
    words("every", optional=True),
    words("event", optional=True),
    moment("not_before", optional=True),
    moment("queued_at", optional=True),
    count("num_failures"),
    words("failure"),
    moment("retry_at", optional=True),
    is_one_of("standing", Standing),
    is_one_of("event", ("results-complete",)),
)
"""A campaign of which nothing was said has no row."""
