"""Datasets: immutable versions, each a list of shared, append-only measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Row, Select, insert, literal, select

from plait.campaign.records import DatasetVersion, Upload
from plait.design.errors import BadInputError, WrongStateError
from plait.design.records import Goal, Readings
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._sequences import sequence_ids
from plait.registry.transaction import Transaction, missing

Identity = tuple[str, str, float, float | None, str | None]
"""What makes two readings the same: sequence, replicate, value, std and batch."""


def add_dataset_version(
    tx: Transaction,
    dataset: str,
    readings: Readings,
    *,
    content_hash: str,
    alphabet: str,
    unit: str,
    goal: Goal,
    actor: str,
    parent_id: str | None = None,
    upload: Upload | None = None,
    round_id: int | None = None,
) -> DatasetVersion:
    """A new version; measurements of the parent that are in `readings` unchanged are shared, not copied.

    A version with this content hash in this dataset is returned as it is.

    Raises:
        BadInputError: No readings, a value that is not finite, several lengths, more than 2,000 letters.
        WrongStateError: The parent is not (any more) the dataset's latest version.
    """
    _check(readings)
    tx.lock()
    known = _versions_of(tx, dataset)
    for version in known:
        if version.id == content_hash:
            return version
    parent = known[-1] if known else None
    if (parent.id if parent else None) != parent_id:
        raise WrongStateError(f"the dataset '{dataset}' has got another version meanwhile", hint="look, then try again")
    assay_id = _assay_id(tx, dataset, unit, goal, actor)
    upload_id = add_upload(tx, upload, actor)
    parent_row = version_row(tx, parent.id, dataset) if parent else None
    shared = _identities(tx, parent_row.id) if parent_row and parent_row.assay_id == assay_id else {}
    common = {"assay_id": assay_id, "upload_id": upload_id, "round_id": round_id, **tx.by(actor)}
    measurement_ids = _measurement_ids(tx, readings, alphabet, shared, common)
    values = {
        "assay_id": assay_id,
        "upload_id": upload_id,
        "alphabet": alphabet,
        "length": len(readings.sequences[0]),
        "num_measurements": len(readings),
        "num_sequences": len(set(readings.sequences)),
    }
    key = insert_version(tx, dataset, content_hash, parent_row.id if parent_row else None, values, actor)
    link(tx, key, 0, measurement_ids)
    return dataset_version_by_id(tx, content_hash, dataset)


def _check(readings: Readings) -> None:
    if len(readings) == 0:
        raise BadInputError("a dataset needs at least one reading")
    if len(lengths := sorted({len(s) for s in readings.sequences})) > 1 or lengths == [0]:
        raise BadInputError(f"the sequences of a dataset have one length; these have {lengths[0]} to {lengths[-1]}")
    is_bad = ~np.isfinite(readings.values)
    if readings.stds is not None:
        is_bad |= np.isinf(readings.stds)
    if is_bad.any():
        raise BadInputError(f"{int(is_bad.sum())} readings are no finite numbers", hint="leave them out")


def _assay_id(tx: Transaction, name: str, unit: str, goal: Goal, actor: str) -> int:
    identity = {"project_id": tx.project_id, "name": name, "unit": unit, "goal": goal}
    return tx.find_or_insert(t.assay, identity, tx.by(actor))


def add_upload(tx: Transaction, upload: Upload | None, actor: str) -> int | None:
    """The key of a file that came in; None for None."""
    if upload is None:
        return None
    identity = {"project_id": tx.project_id, "sha256": upload.sha256, "filename": upload.filename}
    return tx.find_or_insert(t.upload, identity, {"num_bytes": upload.num_bytes, **tx.by(actor)})


def _rows(readings: Readings) -> list[Identity]:
    number = len(readings)
    stds = [None] * number if readings.stds is None else [None if s != s else s for s in readings.stds.tolist()]
    batches = readings.batches or (None,) * number
    return list(zip(readings.sequences, readings.replicates, readings.values.tolist(), stds, batches, strict=True))


def _identities(tx: Transaction, version_key: int) -> dict[Identity, int]:
    return {(r.letters, r.replicate, r.value, r.std, r.batch): r.id for r in tx.rows(_readings_of(version_key))}


def _measurement_ids(
    tx: Transaction, readings: Readings, alphabet: str, shared: dict[Identity, int], common: dict[str, Any]
) -> list[int]:
    rows = _rows(readings)
    new = [row for row in rows if row not in shared]
    keys = sequence_ids(tx, alphabet, (row[0] for row in new))
    ids = tx.insert_many(
        t.measurement,
        [
            {
                "sequence_id": keys[letters],
                "value": value,
                "status": "ok",
                "replicate": replicate,
                "std": std,
                "batch": batch,
                **common,
            }
            for letters, replicate, value, std, batch in new
        ],
    )
    fresh = iter(ids)
    return [shared[row] if row in shared else next(fresh) for row in rows]


def insert_version(
    tx: Transaction, dataset: str, content_hash: str, parent_key: int | None, values: dict[str, Any], actor: str
) -> int:
    """A row of dataset_version with the next number, and its audit event; the key (call under `lock`)."""
    dataset_id = tx.find_or_insert(t.dataset, {"project_id": tx.project_id, "name": dataset}, tx.by(actor))
    number = len(tx.rows(select(t.dataset_version.c.id).where(t.dataset_version.c.dataset_id == dataset_id))) + 1
    row = {"dataset_id": dataset_id, "number": number, "content_hash": content_hash, "parent_id": parent_key}
    key = tx.insert(t.dataset_version, {**row, **values, **tx.by(actor)})
    details = {"number": number, "content_hash": content_hash, "num_measurements": values["num_measurements"]}
    audit.record(tx, actor, "dataset.version_added", f"dataset/{dataset}", details)
    return key


def link(tx: Transaction, version_key: int, start: int, measurement_ids: Sequence[int]) -> None:
    """Put measurements into a version, from position `start` on."""
    rows = [
        {"version_id": version_key, "position": start + i, "measurement_id": m} for i, m in enumerate(measurement_ids)
    ]
    tx.insert_many(t.dataset_version_measurement, rows)


def link_all_of(tx: Transaction, source_key: int, target_key: int) -> None:
    """Put all measurements of one version into another, in their order."""
    links = t.dataset_version_measurement
    query = select(literal(target_key), links.c.position, links.c.measurement_id).where(
        links.c.version_id == source_key
    )
    tx.connection.execute(insert(links).from_select(["version_id", "position", "measurement_id"], query))


def _versions(tx: Transaction) -> Select[Any]:
    parent = t.dataset_version.alias("parent")
    columns = (
        t.dataset.c.name.label("dataset"),
        t.assay.c.unit,
        t.assay.c.goal,
        t.actor.c.name.label("actor"),
        t.upload.c.sha256.label("upload_sha256"),
        parent.c.content_hash.label("parent_hash"),
    )
    joined = (
        t.dataset_version.join(t.dataset)
        .join(t.assay)
        .join(t.actor, t.actor.c.id == t.dataset_version.c.created_by)
        .outerjoin(t.upload, t.upload.c.id == t.dataset_version.c.upload_id)
        .outerjoin(parent, parent.c.id == t.dataset_version.c.parent_id)
    )
    query = select(t.dataset_version, *columns).select_from(joined).where(t.dataset.c.project_id == tx.project_id)
    return query.order_by(t.dataset.c.name, t.dataset_version.c.number)


def _record(row: Row[Any]) -> DatasetVersion:
    return DatasetVersion(
        id=row.content_hash,
        dataset=row.dataset,
        number=row.number,
        alphabet=row.alphabet,
        length=row.length,
        unit=row.unit,
        goal=row.goal,
        num_measurements=row.num_measurements,
        num_sequences=row.num_sequences,
        created_at=row.created_at,
        created_by=row.actor,
        parent_id=row.parent_hash,
        upload_sha256=row.upload_sha256,
    )


def datasets(tx: Transaction) -> list[DatasetVersion]:
    """Latest version of every dataset, by name."""
    return list({row.dataset: _record(row) for row in tx.rows(_versions(tx))}.values())


def dataset_versions(tx: Transaction, dataset: str) -> list[DatasetVersion]:
    """All versions, oldest first.

    Raises:
        NotFoundError: No such dataset.
    """
    versions = _versions_of(tx, dataset)
    if not versions:
        raise missing("dataset", dataset, (v.dataset for v in datasets(tx)))
    return versions


def _versions_of(tx: Transaction, dataset: str) -> list[DatasetVersion]:
    return [_record(row) for row in tx.rows(_versions(tx).where(t.dataset.c.name == dataset))]


def dataset_version(tx: Transaction, dataset: str, number: int | None = None) -> DatasetVersion:
    """The latest, or a numbered, version.

    Raises:
        NotFoundError: No such dataset or number.
    """
    versions = dataset_versions(tx, dataset)
    chosen = versions if number is None else [v for v in versions if v.number == number]
    if not chosen:
        raise missing("version", f"{dataset} {number}", (v.number for v in versions))
    return chosen[-1]


def version_row(tx: Transaction, version_id: str, dataset: str | None = None) -> Row[Any]:
    """The row of a content hash, in one dataset or else in the first that has it.

    Raises:
        NotFoundError: There is none.
    """
    query = _versions(tx).where(t.dataset_version.c.content_hash == version_id)
    if dataset is not None:
        query = query.where(t.dataset.c.name == dataset)
    row = tx.first(query.order_by(None).order_by(t.dataset_version.c.id))
    if row is None:
        raise missing("dataset version", version_id, (f"{v.dataset} {v.number}: {v.id}" for v in datasets(tx)))
    return row


def dataset_version_by_id(tx: Transaction, version_id: str, dataset: str | None = None) -> DatasetVersion:
    """The version with this content hash; two datasets may hold the same content, so `dataset` says which is meant.

    Raises:
        NotFoundError: There is none.
    """
    return _record(version_row(tx, version_id, dataset))


def _readings_of(version_key: int) -> Select[Any]:
    links, m = t.dataset_version_measurement, t.measurement
    joined = links.join(m, m.c.id == links.c.measurement_id).join(t.sequence, t.sequence.c.id == m.c.sequence_id)
    columns = (m.c.id, t.sequence.c.letters, m.c.value, m.c.replicate, m.c.std, m.c.batch)
    return select(*columns).select_from(joined).where(links.c.version_id == version_key).order_by(links.c.position)


def readings(tx: Transaction, version_id: str) -> Readings:
    """The rows of a version, in the order in which they were registered.

    Raises:
        NotFoundError: No such version.
    """
    rows = tx.rows(_readings_of(version_row(tx, version_id).id))
    _, letters, values, replicates, stds, batches = zip(*rows, strict=True)
    has_stds, has_batches = any(s is not None for s in stds), any(b is not None for b in batches)
    return Readings(
        letters,
        np.array(values, dtype=np.float64),
        replicates,
        np.array([np.nan if s is None else s for s in stds]) if has_stds else None,
        tuple(b or "" for b in batches) if has_batches else None,
    )
