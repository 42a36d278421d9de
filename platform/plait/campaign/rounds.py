"""Use cases over rounds once they are computed: approve, reject, order, results, close. No torch here."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from plait.campaign.config import CampaignConfig
from plait.campaign.datasets import concatenate
from plait.campaign.fingerprints import content_hash
from plait.campaign.ports import Ports
from plait.campaign.records import (
    Campaign,
    DatasetVersion,
    Design,
    NewResult,
    Round,
    RoundState,
    Upload,
)
from plait.campaign.repository import UnitOfWork
from plait.campaign.schedules import Schedule, Standing, refuse_cancelled
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
AT_THE_LAB = (RoundState.ORDERED, RoundState.MEASURING, RoundState.MEASURED)
"""States in which results may come in."""


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

    Where the answer to the commit is lost with the database, the decision stands, and the second try is refused.

    Raises:
        WrongStateError: The round does not wait for a decision, or would be approved in a cancelled campaign.
    """

    def change(uow: UnitOfWork) -> Round:
        chosen = latest_round(uow, name, number)
        if chosen.state is not RoundState.PROPOSED:
            raise WrongStateError(
                f"round {chosen.number} of '{name}' is {chosen.state}; only a proposed round can be {state}",
                hint=f"next: {next_step(uow.campaign(name), uow.rounds(name))}",
            )
        if state is RoundState.APPROVED:
            refuse_cancelled(uow.schedule(name))
        return uow.move_round(name, chosen.number, state, ports.actor, reason)

    return ports.repository.transact(change)


def order(ports: Ports, name: str, number: int | None = None) -> tuple[Round, list[Design]]:
    """The designs of an approved round, to be ordered; the same list however often it is asked for.

    Raises:
        WrongStateError: The round is not approved, or not yet ordered in a cancelled campaign.
    """

    def look(uow: UnitOfWork) -> tuple[Round, list[Design]]:
        chosen = latest_round(uow, name, number)
        if chosen.state in (RoundState.RUNNING, RoundState.PROPOSED, RoundState.REJECTED):
            raise WrongStateError(
                f"round {chosen.number} of '{name}' is {chosen.state}; only an approved round can be ordered",
                hint=f"next: {next_step(uow.campaign(name), uow.rounds(name))}",
            )
        if chosen.state is RoundState.APPROVED:
            refuse_cancelled(uow.schedule(name))
        return chosen, uow.designs(name, chosen.number)

    return ports.repository.transact(look)


def mark_ordered(ports: Ports, name: str, number: int, sha256: str) -> Round:
    """Record an order file that was written; the first one moves the round to ORDERED."""

    def change(uow: UnitOfWork) -> Round:
        uow.add_order(name, number, sha256, ports.actor)
        chosen = latest_round(uow, name, number)
        if chosen.state is RoundState.APPROVED:
            return uow.move_round(name, number, RoundState.ORDERED, ports.actor)
        return chosen

    return ports.repository.transact(change)


def open_for_results(uow: UnitOfWork, name: str) -> Round:
    """The round whose results may come in.

    Raises:
        WrongStateError: It is not ordered, or closed.
    """
    chosen = latest_round(uow, name)
    if chosen.state not in AT_THE_LAB:
        raise WrongStateError(
            f"round {chosen.number} of '{name}' is {chosen.state}; results belong to an ordered round",
            hint=f"next: {next_step(uow.campaign(name), uow.rounds(name))}",
        )
    return chosen


def add_results(ports: Ports, name: str, results: list[NewResult], upload: Upload | None) -> tuple[Round, int]:
    """Register readings of the ordered round; they may come in parts. The round and how many were new.

    The round is measured when every design has a reading or a failed well in every assay.

    Raises:
        WrongStateError: No ordered round, or a reading that contradicts a registered one.
    """

    def change(uow: UnitOfWork) -> tuple[Round, int]:
        chosen = open_for_results(uow, name)
        num_new = uow.add_results(name, chosen.number, results, ports.actor, upload)
        state = RoundState.MEASURING if _open_wells(uow, name, chosen.number) else RoundState.MEASURED
        if chosen.state is not state and chosen.state is not RoundState.MEASURED:
            chosen = uow.move_round(name, chosen.number, state, ports.actor)
        return chosen, num_new

    return ports.repository.transact(change)


def _open_wells(uow: UnitOfWork, name: str, number: int) -> list[NewResult]:
    """A failed well for every design and assay without a reading."""
    answered = {(r.design_id, r.assay) for r in uow.results(name, number)}
    designs, assays = uow.designs(name, number), uow.campaign(name).assays
    wells = [(d.design_id, assay) for assay in assays for d in designs]
    return [NewResult(design_id, None, assay=assay) for design_id, assay in wells if (design_id, assay) not in answered]


def close(ports: Ports, name: str) -> tuple[Round, DatasetVersion, dict[str, int]]:
    """Close the measured round: open wells become failed, and each assay's dataset gets a version with its readings.

    The readings join the dataset's latest version, so that campaigns side by side on one dataset lose nothing; where
    the latest has another unit, goal or form, they join the one that the round learned from. Where the answer to the
    commit is lost with the database, the round is closed, and the second try is refused.

    Returns:
        The closed round (its `further` tells the new versions of further assays), the new version of the campaign's
        own dataset, and the number of wells that were still open in each assay.

    Raises:
        WrongStateError: No round is being measured, or not one reading or failed well came in.
    """

    def change(uow: UnitOfWork) -> tuple[Round, DatasetVersion, dict[str, int]]:
        chosen = open_for_results(uow, name)
        if not uow.results(name, chosen.number):
            raise WrongStateError(
                f"round {chosen.number} of '{name}' has no readings yet, and a closed round takes none",
                hint=f"plait results import {name} FILE (a well that failed has status failed)",
            )
        still_open = _open_wells(uow, name, chosen.number)
        uow.add_results(name, chosen.number, still_open, ports.actor, None)  # takes the lock, even for no wells
        campaign = uow.campaign(name)
        learnt_from = {campaign.dataset: chosen.dataset_version_id} | {a.dataset: a.version_id for a in chosen.further}
        bases = {dataset: _base(uow, dataset, version_id) for dataset, version_id in learnt_from.items()}
        new = uow.close_round_into_version(
            name,
            chosen.number,
            content_hash=_joined_hash(uow, chosen, bases[campaign.dataset]),
            dataset=campaign.dataset,
            actor=ports.actor,
            further=[(a.dataset, _joined_hash(uow, chosen, bases[a.dataset])) for a in chosen.further],
            bases={dataset: version.id for dataset, version in bases.items()},
        )
        num_open = Counter(well.assay for well in still_open)
        return latest_round(uow, name, chosen.number), new, {assay: num_open[assay] for assay in campaign.assays}

    return ports.repository.transact(change)


def _base(uow: UnitOfWork, dataset: str, version_id: str) -> DatasetVersion:
    """The version that a round's readings join."""
    own, latest = uow.dataset_version_by_id(version_id, dataset), uow.dataset_version(dataset)

    def form(version: DatasetVersion) -> tuple[object, ...]:
        return version.alphabet, version.length, version.unit, version.goal

    return latest if form(latest) == form(own) else own


def _joined_hash(uow: UnitOfWork, of: Round, version: DatasetVersion) -> str:
    """The content of an assay's dataset once the round's readings have joined it."""
    dataset = version.dataset
    sequences = {d.design_id: d.sequence for d in uow.designs(of.campaign, of.number)}
    results = uow.results(of.campaign, of.number)
    measured = [(r.design_id, r.replicate, r.value) for r in results if r.assay == dataset and r.value is not None]
    added = Readings(
        tuple(sequences[design_id] for design_id, _, _ in measured),
        np.array([value for _, _, value in measured], dtype=np.float64),
        tuple(replicate for _, replicate, _ in measured),
    )
    combined = concatenate(uow.readings(version.id), added)
    return content_hash(combined, alphabet=version.alphabet, unit=version.unit, goal=version.goal)


def next_step(campaign: Campaign, rounds: list[Round]) -> str:
    """The command that goes on with a campaign."""
    num_closed = sum(r.state is RoundState.CLOSED for r in rounds)
    if num_closed >= CampaignConfig.model_validate(campaign.config).rounds:
        return f"plait report {campaign.name} --output report.html"
    return NEXT_STEP[rounds[-1].state if rounds else RoundState.RUNNING].format(campaign.name)


def describe(campaign: Campaign, rounds: list[Round], schedule: Schedule) -> dict[str, Any]:
    """A campaign, how it stands and its rounds as one JSON document, with the next step."""
    step = next_step(campaign, rounds)
    if schedule.standing in (Standing.PAUSED, Standing.FAILED):
        step = f"plait campaign resume {campaign.name}"
    elif schedule.standing is Standing.CANCELLED and (not rounds or rounds[-1].state not in AT_THE_LAB):
        step = f"plait report {campaign.name} --output report.html"
    return {
        **asdict(campaign),
        "schedule": asdict(schedule),
        "rounds": [asdict(r) for r in rounds],
        "next": step,
    }
