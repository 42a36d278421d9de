"""What schedulers and people do about when campaigns run: see what is due, pause, resume, cancel, queue, retry."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from plait.campaign.config import CampaignConfig
from plait.campaign.records import Campaign, Round, RoundState
from plait.campaign.repository import Repository, UnitOfWork
from plait.campaign.rounds import NEXT_STEP
from plait.campaign.schedules import (
    RESULTS_COMPLETE,
    Holding,
    Retrying,
    Schedule,
    Standing,
    next_time,
    refuse_cancelled,
    standing_in_words,
)
from plait.design.records import Progress

SCHEDULER = "scheduler"
"""Who acts where a scheduler does."""
STAGE_NAMES = ("benchmark", "prior", "fit_reward", "sweep", "finetune", "sample", "filter", "select")
PATIENCE = 30.0
"""Seconds that pausing and cancelling wait for the process that runs the round."""
POLL = 0.2

Action = Literal["propose", "close"]


@dataclass(frozen=True)
class Outlook:
    """What a scheduler has to do about a campaign.

    Attributes:
        campaign: Its name.
        round: Number of its newest round, None before the first.
        state: That round's, "new" before the first.
        schedule: How it stands.
        action: What is next for a scheduler; None where it waits for a person or is over.
        due_at: When; None for now, or for never where action is None.
        why_not: Why not now, in words; empty where it is due.
    """

    campaign: str
    round: int | None
    state: str
    schedule: Schedule
    action: Action | None
    due_at: datetime | None
    why_not: str

    @property
    def is_due(self) -> bool:
        """Whether it can be done now."""
        return self.action is not None and not self.why_not


def survey(uow: UnitOfWork) -> list[Outlook]:
    """Every campaign's outlook: by priority, then the oldest first."""
    now, schedules = uow.clock(), uow.schedules()
    found = []
    for campaign in uow.campaigns():
        rounds, schedule = uow.rounds(campaign.name), schedules[campaign.name]
        ready_at = _ready_at(uow, campaign, rounds) if schedule.every else campaign.created_at
        found.append(outlook(campaign, rounds, schedule, ready_at, now))
    return sorted(found, key=lambda o: -o.schedule.priority)


def _ready_at(uow: UnitOfWork, campaign: Campaign, rounds: list[Round]) -> datetime:
    """Since when the next round could begin."""
    if rounds and rounds[-1].next_version_id is not None:
        return uow.dataset_version_by_id(rounds[-1].next_version_id, campaign.dataset).created_at
    decisions = uow.approvals(campaign.name)
    return decisions[-1].created_at if decisions else campaign.created_at


def outlook(campaign: Campaign, rounds: list[Round], schedule: Schedule, ready_at: datetime, now: datetime) -> Outlook:
    """What is to be done about a campaign, when, and why not now.

    Args:
        campaign: It.
        rounds: Its rounds, in order.
        schedule: How it stands.
        ready_at: Since when its next round could begin.
        now: By the database's clock.
    """
    last = rounds[-1] if rounds else None
    action, why_not = _next_action(campaign, rounds, schedule)
    due_at = None
    if action is not None:
        due_at = _due_at(schedule, last, action, ready_at)
        if due_at is not None and due_at > now:
            why_not = (
                f"tried again at {due_at:%Y-%m-%d %H:%M:%S} UTC"
                if schedule.num_failures
                else (f"due at {due_at:%Y-%m-%d %H:%M} UTC")
            )
    if schedule.standing is not Standing.ACTIVE:
        action, due_at, why_not = None, None, standing_in_words(schedule)
    number = last.number if last else None
    return Outlook(campaign.name, number, str(last.state) if last else "new", schedule, action, due_at, why_not)


def _next_action(campaign: Campaign, rounds: list[Round], schedule: Schedule) -> tuple[Action | None, str]:
    state = rounds[-1].state if rounds else RoundState.RUNNING
    if state is RoundState.MEASURED and schedule.when == RESULTS_COMPLETE:
        return "close", ""
    if state not in (RoundState.RUNNING, RoundState.CLOSED, RoundState.REJECTED):
        return None, f"waits for you: {NEXT_STEP[state].format(campaign.name)}"
    num_rounds = int(campaign.config.get("rounds", CampaignConfig.model_fields["rounds"].default))
    if sum(r.state is RoundState.CLOSED for r in rounds) >= num_rounds:
        return None, f"all {num_rounds} rounds are closed"
    return "propose", ""


def _due_at(schedule: Schedule, last: Round | None, action: Action, ready_at: datetime) -> datetime | None:
    """The latest of what is waited for; a round that began goes on without waiting for its day."""
    times = [schedule.retry_at]
    if action == "propose" and (last is None or last.state is not RoundState.RUNNING):
        times.append(schedule.not_before)
        if schedule.every is not None:
            times.append(next_time(schedule.every, max(ready_at, schedule.queued_at or ready_at)))
    return max((t for t in times if t is not None), default=None)


def change_standing(repository: Repository, name: str, standing: Standing, actor: str, reason: str = "") -> Schedule:
    """Pause, resume (ACTIVE, which also forgets failures) or cancel a campaign; nothing happens where it is so.

    Raises:
        WrongStateError: It is cancelled, which is for ever.
    """

    def change(uow: UnitOfWork) -> Schedule:
        old = uow.schedule(name, is_locking=True)
        if old.standing is Standing.CANCELLED and standing is not Standing.CANCELLED:
            refuse_cancelled(old)
        new = replace(old, standing=standing, reason=reason if standing is not old.standing else old.reason)
        if standing is Standing.ACTIVE:
            new = replace(new, reason="", num_failures=0, failure="", retry_at=None)
        verb = {Standing.ACTIVE: "resumed"}.get(standing, str(standing))
        return old if new == old else uow.put_schedule(new, f"campaign.{verb}", actor)

    return repository.transact(change)


def queue(repository: Repository, name: str, actor: str, **changes: Any) -> Schedule:
    """Change when a campaign's rounds begin: any of every, when, not_before and priority; None takes one away.

    Raises:
        WrongStateError: It is cancelled.
    """

    def change(uow: UnitOfWork) -> Schedule:
        old = uow.schedule(name, is_locking=True)
        refuse_cancelled(old)
        new = replace(old, **changes)
        return old if new == old else uow.put_schedule(new, "campaign.queued", actor)

    return repository.transact(change)


def wait_until_stopped(
    repository: Repository, name: str, progress: Progress, patience: float = PATIENCE
) -> Holding | None:
    """Waits for whoever runs a round of the campaign; who still does when patience has run out."""
    board, until = repository.lease_board(), time.monotonic() + patience
    held = (f"campaign/{name}", f"claim/{name}")
    while True:
        holder = next((h for h in board.look() if h.name in held and h.is_living), None)
        if holder is None or time.monotonic() >= until:
            return holder
        progress("waiting", 0, 0, f"for process {holder.pid} on {holder.host} to stop")
        time.sleep(POLL)


def note_success(uow: UnitOfWork, name: str) -> None:
    """Forget the failures of a campaign whose round was proposed."""
    old = uow.schedule(name, is_locking=True)
    if old.num_failures or old.standing is Standing.FAILED:
        standing, reason = (Standing.ACTIVE, "") if old.standing is Standing.FAILED else (old.standing, old.reason)
        new = replace(old, standing=standing, reason=reason, num_failures=0, failure="", retry_at=None)
        uow.put_schedule(new, "campaign.recovered", SCHEDULER)


def note_failure(
    uow: UnitOfWork, name: str, failure: str, retrying: Retrying, *, may_pass: bool, known: int | None = None
) -> Schedule:
    """Count a failure: tried again later, or given up with the failure as the reason.

    Args:
        uow: A transaction.
        name: Of the campaign.
        failure: In words.
        retrying: How failures are answered.
        may_pass: Whether trying again may help.
        known: Failures in a row when the step began: where more are on record, this one is there already.
    """
    old = uow.schedule(name, is_locking=True)
    if known is not None and old.num_failures > known:
        return old
    count = old.num_failures + 1
    pause = retrying.pause(count) if may_pass else None
    retry_at = None if pause is None else uow.clock() + pause
    new = replace(old, num_failures=count, failure=failure, retry_at=retry_at)
    if pause is None and old.standing is Standing.ACTIVE:
        new = replace(new, standing=Standing.FAILED, reason=failure)
        return uow.put_schedule(new, "campaign.failed", SCHEDULER)
    return uow.put_schedule(new, "campaign.stumbled", SCHEDULER)
