"""What `plait status` shows: campaigns, what is next for schedulers, who holds what. Reads the registry, no more."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from plait.campaign.repository import Repository, UnitOfWork
from plait.campaign.schedules import Holding
from plait.campaign.scheduling import STAGE_NAMES, Outlook, survey

CLAIM, RUN, SCHEDULER_PLACE = "claim/", "campaign/", "scheduler/"


def overview(repository: Repository) -> dict[str, Any]:
    """Campaigns, queue, schedulers, leases and the limit as one JSON document, as they are now."""
    holdings = repository.lease_board().look()
    runs = {h.name.removeprefix(RUN): h for h in holdings if h.name.startswith(RUN) and h.is_living}
    claims = {h.name.removeprefix(CLAIM) for h in holdings if h.name.startswith(CLAIM) and h.is_living}
    with repository.read() as uow:
        outlooks, limit = survey(uow), uow.max_running()
        campaigns = [_campaign(uow, o, runs.get(o.campaign)) for o in outlooks]
    num_running = len(runs.keys() | claims)
    queue = [
        {"campaign": o.campaign, "action": o.action, "due_at": o.due_at, "why_not": why_not}
        for o in sorted(outlooks, key=lambda o: (not o.is_due, o.due_at.timestamp() if o.due_at else 0.0))
        if o.action is not None
        for why_not in [_why_not(o, runs.get(o.campaign), o.campaign in claims, limit, num_running)]
    ]
    return {
        "campaigns": campaigns,
        "queue": queue,
        "schedulers": [asdict(h) for h in holdings if h.name.startswith(SCHEDULER_PLACE)],
        "leases": [asdict(h) for h in holdings],
        "max_running": limit,
    }


def _campaign(uow: UnitOfWork, outlook: Outlook, run: Holding | None) -> dict[str, Any]:
    stage, since = _stage(uow, outlook, run) if run is not None else (None, None)
    schedule = outlook.schedule
    return {
        "campaign": outlook.campaign,
        "standing": schedule.standing,
        "reason": schedule.reason,
        "round": outlook.round,
        "state": outlook.state,
        "stage": stage,
        "stage_since": since,
        "host": run.host if run else None,
        "pid": run.pid if run else None,
        "priority": schedule.priority,
        "every": schedule.every,
        "when": schedule.when,
        "num_failures": schedule.num_failures,
        "failure": schedule.failure,
        "why_not": outlook.why_not,
    }


def _stage(uow: UnitOfWork, outlook: Outlook, run: Holding) -> tuple[str | None, datetime]:
    """The stage under way and since when: the first that is not on record."""
    finished = [s for s in uow.stages(outlook.campaign) if s.round in (0, outlook.round)]
    under_way = next((name for name in STAGE_NAMES if name not in {s.stage for s in finished}), None)
    return under_way, max([run.since, *(s.finished_at for s in finished)])


def _why_not(outlook: Outlook, run: Holding | None, is_claimed: bool, limit: int | None, num_running: int) -> str:
    if run is not None:
        return f"runs: process {run.pid} on {run.host}"
    if is_claimed:
        return "a scheduler begins with it"
    if outlook.why_not or limit is None or num_running < limit:
        return outlook.why_not
    return f"{num_running} rounds run, and no more may at a time"
