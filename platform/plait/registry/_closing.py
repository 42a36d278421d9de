"""The end of a round: what was measured becomes a dataset version, one for each assay."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, update

from plait.campaign.records import DatasetVersion, RoundState
from plait.design.errors import WrongStateError
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._assays import Named, further_rows, in_details
from plait.registry._campaigns import movable, subject
from plait.registry._datasets import dataset_version_by_id, insert_version, link, link_all_of
from plait.registry._results import measured
from plait.registry.transaction import Transaction


def close_round_into_version(
    tx: Transaction,
    campaign: str,
    number: int,
    *,
    content_hash: str,
    dataset: str,
    actor: str,
    further: Named = (),
    bases: Mapping[str, str] | None = None,
) -> DatasetVersion:
    """New dataset version = a base version + the round's ok results as measurements, for each assay.

    `bases` are version ids by dataset; by default the versions that the round learned from.

    The measurement rows that add_results wrote are linked, never copied. Moves the round to CLOSED and sets its
    next_version_id, and that of each further assay.

    Raises:
        NotFoundError: No such campaign or round.
        WrongStateError: The round is not being measured, or `further` are not its further assays in their order.
    """
    tx.lock()
    row = movable(tx, campaign, number, RoundState.CLOSED)
    beside = further_rows(tx, row.id)
    if [name for name, _ in further] != [r.dataset for r in beside]:
        names = ", ".join(r.dataset for r in beside) or "none"
        raise WrongStateError(f"the further assays of '{campaign}' are: {names}")
    chosen = {name: _found(tx, name, id_) for name, id_ in (bases or {}).items()}
    base = chosen.get(dataset) or row.dataset_version_id
    key = _version(tx, row.id, base, content_hash, dataset, actor)
    closed = {"state": RoundState.CLOSED, "next_version_id": key}
    tx.connection.execute(update(t.round_).where(t.round_.c.id == row.id).values(closed))
    for assay, (name, hash_) in zip(beside, further, strict=True):
        key = _version(tx, row.id, chosen.get(name) or assay.version_key, hash_, name, actor)
        where = t.round_assay.c.round_id == row.id, t.round_assay.c.position == assay.position
        tx.connection.execute(update(t.round_assay).where(*where).values(next_version_id=key))
    details = {"from": row.state, "dataset_version": content_hash, **in_details(further)}
    audit.record(tx, actor, "round.closed", subject(campaign, number), details)
    return dataset_version_by_id(tx, content_hash, dataset)


def _version(tx: Transaction, round_key: int, base_key: int, content_hash: str, dataset: str, actor: str) -> int:
    """The key of the version with this content in the dataset, made now from its base if it is new."""
    found = _found(tx, dataset, content_hash)
    return _joined_version(tx, round_key, base_key, content_hash, dataset, actor) if found is None else found


def _found(tx: Transaction, dataset: str, content_hash: str) -> int | None:
    """The key of the version with this content in the dataset, if there is one."""
    found = tx.first(
        select(t.dataset_version.c.id)
        .join(t.dataset)
        .where(t.dataset.c.project_id == tx.project_id, t.dataset.c.name == dataset)
        .where(t.dataset_version.c.content_hash == content_hash)
    )
    return None if found is None else int(found.id)


def _joined_version(tx: Transaction, round_key: int, base_key: int, content_hash: str, dataset: str, actor: str) -> int:
    m, links = t.measurement, t.dataset_version_measurement
    base = tx.rows(select(t.dataset_version).where(t.dataset_version.c.id == base_key))[0]
    new = tx.rows(measured(round_key).where(m.c.status == "ok", m.c.assay_id == base.assay_id))
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
