"""Use cases over rounds once they are computed: approve, reject, order, results, close. No torch here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from plait.campaign.config import CampaignConfig
from plait.campaign.datasets import concatenate
from plait.campaign.fingerprints import content_hash
from plait.campaign.ports import Ports, UnitOfWork
from plait.campaign.records import (
    Campaign,
    DatasetVersion,
    Design,
    NewResult,
    Round,
    RoundState,
    Upload,
)
from plait.design.errors import WrongStateError
from plait.design.records import Readings

NEXT_STEP = {
    RoundState.RUNNING: "plait round propose {0}",
    RoundState.PROPOSED: "plait round approve {0} (or reject)",
    RoundState.APPROVED: "plait round export {0} --output order.csv",
    RoundState.ORDERED: "plait results import {0} FILE",
    RoundState.MEASURING: "plait results import {0} FILE, or plait round close {0}",
    RoundState.MEASURED: "plait round close {0}",
    RoundState.CLOSED: "plait round propose {0}",
    RoundState.REJECTED: "plait round propose {0}",
}
"""What a person does next in each state; {0} is the campaign."""


def latest_round(uow: UnitOfWork, campaign: str, number: int | None = None) -> Round:
    """The numbered round, else the newest.

    Raises:
        WrongStateError: No such round.
    """
    rounds = uow.rounds(campaign)
    found = [r for r in rounds if number in (None, r.number)]
    if not found:
        what = f"round {number}" if number is not None else "a round"
        raise WrongStateError(
            f"the campaign '{campaign}' has not got {what} yet", hint=f"run: plait round propose {campaign}"
        )
    return found[-1]


def decide(ports: Ports, name: str, state: RoundState, number: int | None = None, reason: str = "") -> Round:
    """Approve or reject a proposed round, as the acting person.

    Raises:
        WrongStateError: The round does not wait for a decision.
    """
    with ports.repository.begin() as uow:
        chosen = latest_round(uow, name, number)
        if chosen.state is not RoundState.PROPOSED:
            raise WrongStateError(
                f"round {chosen.number} of '{name}' is {chosen.state}; only a proposed round can be {state}",
                hint=f"next: {next_step(uow.campaign(name), uow.rounds(name))}",
            )
        return uow.move_round(name, chosen.number, state, ports.actor, reason)


def order(ports: Ports, name: str, number: int | None = None) -> tuple[Round, list[Design]]:
    """The designs of an approved round, to be ordered; the same list however often it is asked for.

    Raises:
        WrongStateError: The round is not approved.
    """
    with ports.repository.begin() as uow:
        chosen = latest_round(uow, name, number)
        if chosen.state in (RoundState.RUNNING, RoundState.PROPOSED, RoundState.REJECTED):
            raise WrongStateError(
                f"round {chosen.number} of '{name}' is {chosen.state}; only an approved round can be ordered",
                hint=f"next: {next_step(uow.campaign(name), uow.rounds(name))}",
            )
        return chosen, uow.designs(name, chosen.number)


def mark_ordered(ports: Ports, name: str, number: int, sha256: str) -> Round:
    """Record an order file that was written; the first one moves the round to ORDERED."""
    with ports.repository.begin() as uow:
        uow.add_order(name, number, sha256, ports.actor)
        chosen = latest_round(uow, name, number)
        if chosen.state is RoundState.APPROVED:
            return uow.move_round(name, number, RoundState.ORDERED, ports.actor)
        return chosen


def open_for_results(uow: UnitOfWork, name: str) -> Round:
    """The round whose results may come in.

    Raises:
        WrongStateError: It is not ordered, or closed.
    """
    chosen = latest_round(uow, name)
    if chosen.state not in (RoundState.ORDERED, RoundState.MEASURING, RoundState.MEASURED):
        raise WrongStateError(
            f"round {chosen.number} of '{name}' is {chosen.state}; results belong to an ordered round",
            hint=f"next: {next_step(uow.campaign(name), uow.rounds(name))}",
        )
    return chosen


def add_results(ports: Ports, name: str, results: list[NewResult], upload: Upload | None) -> tuple[Round, int]:
    """Register readings of the ordered round; they may come in parts. The round and how many were new.

    Raises:
        WrongStateError: No ordered round, or a reading that contradicts a registered one.
    """
    with ports.repository.begin() as uow:
        chosen = open_for_results(uow, name)
        num_new = uow.add_results(name, chosen.number, results, ports.actor, upload)
        answered = {r.design_id for r in uow.results(name, chosen.number)}
        is_complete = answered >= {d.design_id for d in uow.designs(name, chosen.number)}
        state = RoundState.MEASURED if is_complete else RoundState.MEASURING
        if chosen.state is not state and chosen.state is not RoundState.MEASURED:
            chosen = uow.move_round(name, chosen.number, state, ports.actor)
        return chosen, num_new


def close(ports: Ports, name: str) -> tuple[Round, DatasetVersion, int]:
    """Close the measured round: open wells become failed, and the dataset gets a version with the readings joined.

    Returns:
        The closed round, the new dataset version and the number of wells that were still open.

    Raises:
        WrongStateError: No round is being measured.
    """
    with ports.repository.begin() as uow:
        chosen = open_for_results(uow, name)
        designs = {d.design_id: d for d in uow.designs(name, chosen.number)}
        answered = {r.design_id for r in uow.results(name, chosen.number)}
        still_open = [NewResult(i, None) for i in designs if i not in answered]
        if still_open:
            uow.add_results(name, chosen.number, still_open, ports.actor, None)
        version = uow.dataset_version_by_id(chosen.dataset_version_id, uow.campaign(name).dataset)
        measured = [r for r in uow.results(name, chosen.number) if r.value is not None]
        added = Readings(
            tuple(designs[r.design_id].sequence for r in measured),
            np.array([r.value for r in measured], dtype=np.float64),
            tuple(r.replicate for r in measured),
        )
        combined = concatenate(uow.readings(version.id), added)
        key = content_hash(combined, alphabet=version.alphabet, unit=version.unit, goal=version.goal)
        new = uow.close_round_into_version(
            name, chosen.number, content_hash=key, dataset=version.dataset, actor=ports.actor
        )
        return latest_round(uow, name, chosen.number), new, len(still_open)


def next_step(campaign: Campaign, rounds: list[Round]) -> str:
    """The command that goes on with a campaign."""
    num_closed = sum(r.state is RoundState.CLOSED for r in rounds)
    if num_closed >= CampaignConfig.model_validate(campaign.config).rounds:
        return f"plait report {campaign.name} --output report.html"
    return NEXT_STEP[rounds[-1].state if rounds else RoundState.RUNNING].format(campaign.name)


def describe(campaign: Campaign, rounds: list[Round]) -> dict[str, Any]:
    """A campaign and its rounds as one JSON document, with the next step."""
    return {
        **asdict(campaign),
        "rounds": [asdict(r) for r in rounds],
        "next": next_step(campaign, rounds),
    }
