"""Campaigns, their rounds, and who let a round go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, select, update

from plait.campaign.records import ALLOWED_MOVES, Approval, Campaign, Round, RoundState
from plait.design.errors import WrongStateError
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._assays import Named, add_further, further_of_campaigns, further_of_rounds, in_details
from plait.registry._datasets import version_row
from plait.registry.transaction import Transaction, missing

DECISIONS = (RoundState.APPROVED, RoundState.REJECTED)


def add_campaign(
    tx: Transaction,
    name: str,
    *,
    dataset_version_id: str,
    config: dict[str, Any],
    space: dict[str, Any],
    notes: Sequence[str],
    actor: str,
    further: Named = (),
) -> Campaign:
    """A new campaign; `further` are the dataset and version of each assay beside the first.

    Raises:
        NotFoundError: No such dataset version.
        WrongStateError: The name is taken, or two assays share a dataset.
    """
    tx.lock()
    if tx.first(_campaigns(tx).where(t.campaign.c.name == name)) is not None:
        raise WrongStateError(f"there is a campaign '{name}' already", hint="choose another name")
    text = json.dumps(space, sort_keys=True, separators=(",", ":"), allow_nan=False)
    identity = {"project_id": tx.project_id, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    version = version_row(tx, dataset_version_id, config.get("dataset"))
    names = [version.dataset, *(dataset for dataset, _ in further)]
    if len(set(names)) < len(names):
        raise WrongStateError(f"each assay of '{name}' is a dataset of its own, not {', '.join(names)}")
    values = {
        "project_id": tx.project_id,
        "name": name,
        "dataset_version_id": version.id,
        "design_space_id": tx.find_or_insert(t.design_space, identity, {"document": space, "created_at": tx.now}),
        "config": config,
        "notes": list(notes),
    }
    key = tx.insert(t.campaign, {**values, **tx.by(actor)})
    add_further(tx, t.campaign_assay, {"campaign_id": key}, further)
    details = {"dataset_version": dataset_version_id, **in_details(further)}
    audit.record(tx, actor, "campaign.created", f"campaign/{name}", details)
    return campaign(tx, name)


def _campaigns(tx: Transaction) -> Select[Any]:
    columns = (
        t.dataset_version.c.content_hash,
        t.dataset.c.name.label("dataset"),
        t.design_space.c.document.label("space"),
        t.actor.c.name.label("actor"),
    )
    joined = (
        t.campaign.join(t.dataset_version)
        .join(t.dataset)
        .join(t.design_space, t.design_space.c.id == t.campaign.c.design_space_id)
        .join(t.actor, t.actor.c.id == t.campaign.c.created_by)
    )
    query = select(t.campaign, *columns).select_from(joined).where(t.campaign.c.project_id == tx.project_id)
    return query.order_by(t.campaign.c.id)


def campaigns(tx: Transaction) -> list[Campaign]:
    """All, oldest first. A campaign's state is that of its newest round, "new" before the first."""
    query = select(t.round_.c.campaign_id, t.round_.c.state).order_by(t.round_.c.number)
    states = {row.campaign_id: row.state for row in tx.rows(query)}
    further = further_of_campaigns(tx)
    return [
        Campaign(
            id=row.id,
            name=row.name,
            dataset=row.dataset,
            dataset_version_id=row.content_hash,
            config=row.config,
            space=row.space,
            state=states.get(row.id, "new"),
            created_at=row.created_at,
            created_by=row.actor,
            notes=tuple(row.notes),
            further=further.get(row.id, ()),
        )
        for row in tx.rows(_campaigns(tx))
    ]


def campaign(tx: Transaction, name: str) -> Campaign:
    """One by name.

    Raises:
        NotFoundError: There is none.
    """
    key = campaign_id(tx, name)
    return next(c for c in campaigns(tx) if c.id == key)


def add_round(
    tx: Transaction, campaign: str, number: int, dataset_version_id: str, actor: str, further: Named = ()
) -> Round:
    """A new round in state RUNNING; the existing one if (campaign, number) is there already.

    Raises:
        NotFoundError: No such campaign or dataset version.
        WrongStateError: A number was left out, or `further` are not the campaign's further assays in their order.
    """
    tx.lock()
    owner_id, known = campaign_id(tx, campaign), rounds(tx, campaign)
    if number <= len(known) and number >= 1:
        return known[number - 1]
    if number != len(known) + 1:
        raise WrongStateError(f"the next round of '{campaign}' is {len(known) + 1}, not {number}")
    of_campaign = tx.first(_campaigns(tx).where(t.campaign.c.id == owner_id))
    names = [assay.dataset for assay in further_of_campaigns(tx).get(owner_id, ())]
    if [dataset for dataset, _ in further] != names:
        raise WrongStateError(f"the further assays of '{campaign}' are: {', '.join(names) or 'none'}")
    values = {
        "campaign_id": owner_id,
        "number": number,
        "state": RoundState.RUNNING,
        "dataset_version_id": version_row(tx, dataset_version_id, of_campaign.dataset if of_campaign else None).id,
    }
    key = tx.insert(t.round_, {**values, **tx.by(actor)})
    add_further(tx, t.round_assay, {"round_id": key}, further)
    details = {"dataset_version": dataset_version_id, **in_details(further)}
    audit.record(tx, actor, "round.started", subject(campaign, number), details)
    return rounds(tx, campaign)[-1]


def campaign_id(tx: Transaction, name: str) -> int:
    """The key of a campaign.

    Raises:
        NotFoundError: There is none.
    """
    in_project = select(t.campaign.c.id, t.campaign.c.name).where(t.campaign.c.project_id == tx.project_id)
    known = {row.name: row.id for row in tx.rows(in_project.order_by(t.campaign.c.id))}
    if name not in known:
        raise missing("campaign", name, known)
    return int(known[name])


def subject(campaign: str, number: int) -> str:
    """What audit events call a round."""
    return f"campaign/{campaign}/round/{number}"


def _rounds(tx: Transaction, campaign: str) -> Select[Any]:
    after = t.dataset_version.alias("after")
    columns = (
        t.campaign.c.name.label("campaign"),
        t.dataset_version.c.content_hash,
        t.dataset_version.c.assay_id,
        t.dataset_version.c.alphabet,
        t.dataset.c.name.label("dataset"),
        after.c.content_hash.label("next_hash"),
    )
    joined = (
        t.round_.join(t.campaign, t.campaign.c.id == t.round_.c.campaign_id)
        .join(t.dataset_version, t.dataset_version.c.id == t.round_.c.dataset_version_id)
        .join(t.dataset, t.dataset.c.id == t.dataset_version.c.dataset_id)
        .outerjoin(after, after.c.id == t.round_.c.next_version_id)
    )
    of_campaign = (t.campaign.c.project_id == tx.project_id, t.campaign.c.name == campaign)
    return select(t.round_, *columns).select_from(joined).where(*of_campaign).order_by(t.round_.c.number)


def rounds(tx: Transaction, campaign: str) -> list[Round]:
    """All rounds of a campaign, in order.

    Raises:
        NotFoundError: No such campaign.
    """
    return _records(tx, round_rows(tx, campaign))


def round_rows(tx: Transaction, campaign: str, number: int | None = None) -> Sequence[Row[Any]]:
    """The rows of all rounds of a campaign (or of the one with this number), with `dataset`, `assay_id` and `alphabet`.

    Raises:
        NotFoundError: No such campaign.
    """
    campaign_id(tx, campaign)
    query = _rounds(tx, campaign)
    return tx.rows(query if number is None else query.where(t.round_.c.number == number))


def _records(tx: Transaction, rows: Sequence[Row[Any]]) -> list[Round]:
    further = further_of_rounds(tx, (row.id for row in rows))
    return [
        Round(
            id=row.id,
            campaign=row.campaign,
            number=row.number,
            state=RoundState(row.state),
            dataset_version_id=row.content_hash,
            next_version_id=row.next_hash,
            created_at=row.created_at,
            further=further.get(row.id, ()),
        )
        for row in rows
    ]


def round_row(tx: Transaction, campaign: str, number: int) -> Row[Any]:
    """The row of a round, with `dataset`, `assay_id` and `alphabet` of its own data.

    Raises:
        NotFoundError: No such campaign or round.
    """
    found = round_rows(tx, campaign, number)
    if not found:
        raise missing("round", f"{campaign} {number}", (r.number for r in rounds(tx, campaign)))
    return found[0]


def move_round(tx: Transaction, campaign: str, number: int, state: RoundState, actor: str, reason: str = "") -> Round:
    """A move that ALLOWED_MOVES allows; APPROVED and REJECTED write an approval.

    Raises:
        NotFoundError: No such campaign or round.
        WrongStateError: The round cannot go there from where it is.
    """
    tx.lock()
    row = movable(tx, campaign, number, state)
    tx.connection.execute(update(t.round_).where(t.round_.c.id == row.id).values(state=state))
    if state in DECISIONS:
        tx.insert(t.approval, {"round_id": row.id, "decision": state, "reason": reason, **tx.by(actor)})
    details = {"from": row.state, "reason": reason}
    audit.record(tx, actor, f"round.{state}", subject(campaign, number), details)
    return _records(tx, [round_row(tx, campaign, number)])[0]


def movable(tx: Transaction, campaign: str, number: int, state: RoundState) -> Row[Any]:
    """The row of a round that may go to `state`.

    Raises:
        NotFoundError: No such campaign or round.
        WrongStateError: It cannot go there from where it is.
    """
    row = round_row(tx, campaign, number)
    allowed = ALLOWED_MOVES[RoundState(row.state)]
    if state not in allowed:
        after = " or ".join(sorted(allowed)) or "nothing"
        raise WrongStateError(
            f"round {number} of '{campaign}' is {row.state} and cannot become {state}",
            hint=f"after {row.state}: {after}",
        )
    return row


def approvals(tx: Transaction, campaign: str) -> list[Approval]:
    """All decisions, oldest first.

    Raises:
        NotFoundError: No such campaign.
    """
    query = (
        select(t.approval, t.round_.c.number, t.actor.c.name.label("actor"))
        .join_from(t.approval, t.round_)
        .join(t.actor, t.actor.c.id == t.approval.c.created_by)
        .where(t.round_.c.campaign_id == campaign_id(tx, campaign))
        .order_by(t.approval.c.id)
    )
    return [Approval(row.number, row.decision, row.actor, row.reason, row.created_at) for row in tx.rows(query)]
