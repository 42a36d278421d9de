"""Readings that come back from the lab, as measurements of designs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, insert, select

from plait.campaign.records import NewResult, Result, RoundState, Upload
from plait.design.errors import WrongStateError
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._assays import further_rows
from plait.registry._campaigns import round_row, round_rows, subject
from plait.registry._datasets import add_upload
from plait.registry._designs import design_rows
from plait.registry.transaction import Transaction, missing

Key = tuple[str, str, str]
"""What a reading is known by: design, assay and replicate."""

OPEN_FOR_RESULTS = (RoundState.ORDERED, RoundState.MEASURING, RoundState.MEASURED)


def add_results(
    tx: Transaction, campaign: str, number: int, results: Sequence[NewResult], actor: str, upload: Upload | None
) -> int:
    """Registers readings; the number that were new (an equal one again is not an error, another value is).

    An ok reading is a measurement row (with design_id, round) of its assay; a failed well is kept with status failed.

    Raises:
        BadInputError: A value that is not finite.
        NotFoundError: No such campaign, round or design, or an assay that is none of the campaign's.
        WrongStateError: The round is not being measured, or a reading contradicts a registered one.
    """
    tx.lock()
    row = round_row(tx, campaign, number)
    if row.state not in OPEN_FOR_RESULTS:
        raise WrongStateError(f"round {number} of '{campaign}' is {row.state}; it takes no results")
    designs = design_rows(tx, campaign, number, [r.design_id for r in results])
    assays = _assay_ids(tx, row, [r.assay for r in results if r.assay is not None])
    known = {(r.design_id, r.assay, r.replicate): r.value for r in tx.rows(_results(row.id))}
    new = _new([(r, r.assay or row.dataset) for r in results], known)
    if not new:
        return 0
    common = {
        "upload_id": add_upload(tx, upload, actor),
        "round_id": row.id,
        **tx.by(actor),
    }
    values = [
        {
            "assay_id": assays[assay],
            "design_id": designs[r.design_id].id,
            "sequence_id": designs[r.design_id].sequence_id,
            "value": r.value,
            "status": "failed" if r.value is None else "ok",
            "replicate": r.replicate,
            **common,
        }
        for r, assay in new
    ]
    tx.connection.execute(insert(t.measurement), values)
    details: dict[str, Any] = {"num_new": len(new), "num_failed": sum(r.value is None for r, _ in new)}
    if len(assays) > 1:
        details["num_new_by_assay"] = Counter(assay for _, assay in new)
    audit.record(tx, actor, "results.added", subject(campaign, number), details)
    return len(new)


def _assay_ids(tx: Transaction, row: Row[Any], wanted: Sequence[str]) -> dict[str, int]:
    known = {row.dataset: row.assay_id, **{r.dataset: r.assay_id for r in further_rows(tx, row.id)}}
    for name in wanted:
        if name not in known:
            raise missing(f"assay of the campaign '{row.campaign}' called", name, known)
    return known


def _new(results: Sequence[tuple[NewResult, str]], known: dict[Key, float | None]) -> list[tuple[NewResult, str]]:
    new = []
    for result, assay in results:
        key = (result.design_id, assay, result.replicate)
        if key not in known:
            known[key] = result.value
            new.append((result, assay))
        elif known[key] != result.value:
            was, now = ("failed" if value is None else f"{value:g}" for value in (known[key], result.value))
            raise WrongStateError(
                f"{result.design_id} replicate {result.replicate} is registered as {was} in {assay}, not {now}",
                hint="name another replicate if the well was measured again",
            )
    return new


def measured(round_id: int) -> Select[Any]:
    """The results of a round, oldest first; a row that another one supersedes is left out."""
    m, newer = t.measurement, t.measurement.alias("newer")
    query = select(m).where(m.c.round_id == round_id, m.c.design_id.is_not(None))
    return query.where(~select(newer.c.id).where(newer.c.supersedes_id == m.c.id).exists()).order_by(m.c.id)


def _results(round_id: int) -> Select[Any]:
    rows = measured(round_id).subquery()
    columns = rows.c.value, rows.c.replicate, rows.c.created_at
    return (
        select(
            *columns,
            t.design.c.name.label("design_id"),
            t.actor.c.name.label("actor"),
            t.assay.c.name.label("assay"),
        )
        .join_from(rows, t.design, t.design.c.id == rows.c.design_id)
        .join(t.actor, t.actor.c.id == rows.c.created_by)
        .join(t.assay, t.assay.c.id == rows.c.assay_id)
        .order_by(rows.c.id)
    )


def results(tx: Transaction, campaign: str, number: int | None = None) -> list[Result]:
    """All results, oldest first (by round).

    Raises:
        NotFoundError: No such campaign.
    """
    return [
        Result(row.design_id, row.value, row.replicate, row.actor, row.created_at, row.assay)
        for of_round in round_rows(tx, campaign, number)
        for row in tx.rows(_results(of_round.id))
    ]
