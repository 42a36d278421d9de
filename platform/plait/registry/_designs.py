"""The batch of a round: designs, their screening and their order files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, insert, select

from plait.campaign.records import Design
from plait.design.errors import WrongStateError
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._campaigns import round_row, round_rows, subject
from plait.registry._sequences import sequence_ids
from plait.registry.transaction import SYSTEM, Transaction, missing


def add_designs(tx: Transaction, campaign: str, number: int, designs: Sequence[Design]) -> None:
    """The batch of a round, once; the same batch again changes nothing.

    Raises:
        NotFoundError: No such campaign or round.
        WrongStateError: The round has another batch already.
    """
    tx.lock()
    row = round_row(tx, campaign, number)
    known = _designs_of(tx, campaign, row)
    if known:
        if [(d.design_id, d.sequence) for d in known] != [(d.design_id, d.sequence) for d in _by_rank(designs)]:
            raise WrongStateError(f"round {number} of '{campaign}' has another batch already")
        return
    keys = sequence_ids(tx, row.alphabet, (d.sequence for d in designs))
    values = [
        {
            "round_id": row.id,
            "name": d.design_id,
            "rank": d.rank,
            "sequence_id": keys[d.sequence],
            "predicted_mean": d.predicted_mean,
            "predicted_std": d.predicted_std,
            "conservative": d.conservative,
            "source": d.source,
            "details": d.details,
            "created_at": tx.now,
        }
        for d in _by_rank(designs)
    ]
    if values:
        tx.connection.execute(insert(t.design), values)
    details = {"num_designs": len(values)}
    audit.record(tx, SYSTEM, "designs.added", subject(campaign, number), details)


def _by_rank(designs: Sequence[Design]) -> list[Design]:
    return sorted(designs, key=lambda d: d.rank)


def _designs_of(tx: Transaction, campaign: str, row: Row[Any]) -> list[Design]:
    query = select(t.design, t.sequence.c.letters).join_from(t.design, t.sequence).where(t.design.c.round_id == row.id)
    return [
        Design(
            design_id=d.name,
            campaign=campaign,
            round=row.number,
            rank=d.rank,
            sequence=d.letters,
            predicted_mean=d.predicted_mean,
            predicted_std=d.predicted_std,
            conservative=d.conservative,
            source=d.source,
            details=d.details,
        )
        for d in tx.rows(query.order_by(t.design.c.rank))
    ]


def designs(tx: Transaction, campaign: str, number: int | None = None) -> list[Design]:
    """By round and rank.

    Raises:
        NotFoundError: No such campaign.
    """
    return [d for row in round_rows(tx, campaign, number) for d in _designs_of(tx, campaign, row)]


def design_rows(tx: Transaction, campaign: str, number: int, wanted: Sequence[str]) -> dict[str, Row[Any]]:
    """The designs of a round by design_id, all of `wanted` among them.

    Raises:
        NotFoundError: No such campaign, round or design.
    """
    row = round_row(tx, campaign, number)
    known = {d.name: d for d in tx.rows(select(t.design).where(t.design.c.round_id == row.id))}
    for name in wanted:
        if name not in known:
            raise missing(f"design in round {number} of '{campaign}' called", name, known)
    return known


def add_screening(
    tx: Transaction, campaign: str, number: int, tool: str, version: str, verdicts: Sequence[tuple[str, bool, str]]
) -> None:
    """(design_id, is_cleared, reason) of a screening run; a verdict that is there already is not doubled.

    Raises:
        NotFoundError: No such campaign, round or design.
    """
    tx.lock()
    known = design_rows(tx, campaign, number, [name for name, _, _ in verdicts])
    before = set(screenings(tx, campaign, number))
    new = [
        {
            "design_id": known[name].id,
            "tool": tool,
            "version": version,
            "is_cleared": is_cleared,
            "reason": reason,
            "created_at": tx.now,
        }
        for name, is_cleared, reason in verdicts
        if (tool, version, name, is_cleared, reason) not in before
    ]
    if not new:
        return
    tx.connection.execute(insert(t.screening), new)
    details = {
        "tool": tool,
        "version": version,
        "stopped": [name for name, is_cleared, _ in verdicts if not is_cleared],
    }
    audit.record(tx, SYSTEM, "designs.screened", subject(campaign, number), details)


def screenings(tx: Transaction, campaign: str, number: int) -> list[tuple[str, str, str, bool, str]]:
    """(tool, version, design_id, is_cleared, reason), oldest first.

    Raises:
        NotFoundError: No such campaign or round.
    """
    row = round_row(tx, campaign, number)
    query = select(t.screening, t.design.c.name).join_from(t.screening, t.design).where(t.design.c.round_id == row.id)
    return [(s.tool, s.version, s.name, s.is_cleared, s.reason) for s in tx.rows(query.order_by(t.screening.c.id))]


def add_order(tx: Transaction, campaign: str, number: int, sha256: str, actor: str) -> None:
    """An exported order file; the same bytes again are the same file.

    Raises:
        NotFoundError: No such campaign or round.
    """
    tx.lock()
    row = round_row(tx, campaign, number)
    tx.find_or_insert(t.order_file, {"round_id": row.id, "sha256": sha256}, tx.by(actor))
    audit.record(tx, actor, "order.exported", subject(campaign, number), {"sha256": sha256})
