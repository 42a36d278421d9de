"""The end of a round: what was measured becomes a dataset version."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select, update

from plait.campaign.records import DatasetVersion, RoundState
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._campaigns import movable, subject
from plait.registry._datasets import dataset_version_by_id, insert_version, link, link_all_of
from plait.registry._results import measured
from plait.registry.transaction import Transaction


def close_round_into_version(
    tx: Transaction, campaign: str, number: int, *, content_hash: str, dataset: str, actor: str
) -> DatasetVersion:
    """New dataset version = the round's dataset version + the round's ok results as measurements.

    The measurement rows that add_results wrote are linked, never copied. Moves the round to CLOSED and sets its
    next_version_id.

    Raises:
        NotFoundError: No such campaign or round.
        WrongStateError: The round is not being measured.
    """
    tx.lock()
    row = movable(tx, campaign, number, RoundState.CLOSED)
    found = tx.first(
        select(t.dataset_version.c.id)
        .join(t.dataset)
        .where(t.dataset.c.project_id == tx.project_id, t.dataset.c.name == dataset)
        .where(t.dataset_version.c.content_hash == content_hash)
    )
    key = _joined_version(tx, row, content_hash, dataset, actor) if found is None else found.id
    closed = {"state": RoundState.CLOSED, "next_version_id": key}
    tx.connection.execute(update(t.round_).where(t.round_.c.id == row.id).values(closed))
    audit.record(
        tx, actor, "round.closed", subject(campaign, number), {"from": row.state, "dataset_version": content_hash}
    )
    return dataset_version_by_id(tx, content_hash, dataset)


def _joined_version(tx: Transaction, row: Row[Any], content_hash: str, dataset: str, actor: str) -> int:
    m, links = t.measurement, t.dataset_version_measurement
    base = tx.rows(select(t.dataset_version).where(t.dataset_version.c.id == row.dataset_version_id))[0]
    new = tx.rows(measured(row.id).where(m.c.status == "ok"))
    old = select(m.c.sequence_id).join(links, links.c.measurement_id == m.c.id).where(links.c.version_id == base.id)
    sequences = {r.sequence_id for r in tx.rows(old)} | {r.sequence_id for r in new}
    values = {
        "assay_id": base.assay_id,
        "alphabet": base.alphabet,
        "length": base.length,
        "num_measurements": base.num_measurements + len(new),
        "num_sequences": len(sequences),
    }
    key = insert_version(tx, dataset, content_hash, base.id, values, actor)
    link_all_of(tx, base.id, key)
    link(tx, key, base.num_measurements, [r.id for r in new])
    return key
