"""What nothing refers to any more: kept artifacts that no row names, unfinished work of rounds that are over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from plait.campaign.fingerprints import hashes_in
from plait.campaign.ports import ArtifactStore, Kept, Unfinished
from plait.campaign.records import RoundState
from plait.campaign.repository import Repository, UnitOfWork
from plait.campaign.schedules import Standing
from plait.campaign.stage_runs import scratch_key
from plait.design.errors import CorruptArtifactError

RUN = "campaign/"
"""How the name of a lease on a campaign begins."""


@dataclass(frozen=True)
class Garbage:
    """What can go, or has gone.

    Attributes:
        artifacts: Kept bundles and documents.
        unfinished: Work that nobody will go on with.
        num_kept: Artifacts that stay.
    """

    artifacts: tuple[Kept, ...]
    unfinished: tuple[Unfinished, ...]
    num_kept: int

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return sum(kept.num_bytes for kept in self.artifacts) + sum(work.num_bytes for work in self.unfinished)


def find_garbage(repository: Repository, artifacts: ArtifactStore, now: datetime, grace: timedelta) -> Garbage:
    """What no row names, no row's artifact names, no round goes on with, and nobody has touched for a while.

    Every run of 64 hex digits counts as a reference, whatever it is; what was kept since the oldest living lease on a
    campaign began, by whichever clock, stays, and so does all unfinished work of leased campaigns and of rounds that
    are running and not cancelled.

    Args:
        repository: The only one whose rows speak of these artifacts.
        artifacts: The store.
        now: The time.
        grace: How long things stay at least after they were written last.
    """
    listed = list(artifacts.kept())
    leases = [held for held in repository.lease_board().look() if held.is_living and held.name.startswith(RUN)]
    leased = {held.name.removeprefix(RUN) for held in leases}
    named, needed = repository.transact(lambda uow: (uow.referred(), tuple(_needed(uow, leased))))
    reached = _reached(artifacts, named, {kept.sha256 for kept in listed})
    latest = min([now, *(held.since for held in leases)]) - grace  # hosts may differ in what time it is
    gone = [kept for kept in listed if kept.sha256 not in reached and kept.kept_at < latest]
    unfinished = list(artifacts.unfinished())
    touched = {work.key for work in unfinished if work.changed_at >= now - grace}  # here or behind a URL
    over = [work for work in unfinished if work.key not in touched and not work.key.startswith(needed)]
    return Garbage(tuple(gone), tuple(over), len(listed) - len(gone))


def collect(repository: Repository, artifacts: ArtifactStore, now: datetime, grace: timedelta) -> Garbage:
    """Remove it; what was touched, or got a reference, while it was looked for, stays."""
    found = find_garbage(repository, artifacts, now, grace)
    again = find_garbage(repository, artifacts, now, grace)
    artifacts_, unfinished = set(found.artifacts) & set(again.artifacts), set(found.unfinished) & set(again.unfinished)
    for kept in artifacts_:
        artifacts.drop(kept.sha256)
    for work in unfinished:
        artifacts.drop_scratch(work.key)
    return Garbage(tuple(artifacts_), tuple(unfinished), again.num_kept)


def reached_from(artifacts: ArtifactStore, named: set[str]) -> set[str]:
    """Of the hashes that rows name, those of kept artifacts, with those that kept documents name in turn."""
    return _reached(artifacts, named, {kept.sha256 for kept in artifacts.kept()})


def _reached(artifacts: ArtifactStore, named: set[str], listed: set[str]) -> set[str]:
    found: set[str] = set()
    new = named & listed
    while new:
        found |= new
        new = {sha for document in _documents(artifacts, new) for sha in hashes_in(document)} & listed - found
    return found


def _documents(artifacts: ArtifactStore, hashes: Iterable[str]) -> Iterator[str]:
    for sha in hashes:
        try:
            yield json.dumps(artifacts.get_json(sha))
        except CorruptArtifactError:
            continue  # a bundle, which names nothing


def _needed(uow: UnitOfWork, leased: set[str]) -> Iterator[str]:
    """How the keys of unfinished work begin that somebody may go on with."""
    schedules = uow.schedules()
    for campaign in uow.campaigns():
        if campaign.name in leased:
            yield scratch_key(campaign, 0, "prior").removesuffix("0-prior")
        elif campaign.state == RoundState.RUNNING and schedules[campaign.name].standing is not Standing.CANCELLED:
            yield scratch_key(campaign, uow.rounds(campaign.name)[-1].number, "")
            yield scratch_key(campaign, 0, "prior")
