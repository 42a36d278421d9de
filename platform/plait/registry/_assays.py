"""The assays of a campaign and of its rounds beside the first: which version of which dataset each stands at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, Select, Table, null, select

from plait.campaign.records import AssayVersion
from plait.registry import tables as t
from plait.registry._datasets import version_row
from plait.registry.transaction import Transaction

Named = Sequence[tuple[str, str]]
"""Pairs of a dataset and the content hash of one of its versions."""


def add_further(tx: Transaction, table: Table, owner: dict[str, int], further: Named) -> None:
    """The further assays of a campaign or round, in order.

    Args:
        tx: The transaction.
        table: campaign_assay or round_assay.
        owner: The column of the campaign or round, and its key.
        further: A dataset and the content hash of its version for each.

    Raises:
        NotFoundError: No such version.
    """
    rows = [
        {**owner, "position": position, "dataset_version_id": version_row(tx, version_id, dataset).id}
        for position, (dataset, version_id) in enumerate(further, start=1)
    ]
    if rows:
        tx.connection.execute(table.insert(), rows)


def further_of_campaigns(tx: Transaction) -> dict[int, tuple[AssayVersion, ...]]:
    """Further assays by the key of their campaign; campaigns without any are left out."""
    return _by_owner(tx.rows(_further(t.campaign_assay, "campaign_id")))


def further_of_rounds(tx: Transaction, keys: Iterable[int]) -> dict[int, tuple[AssayVersion, ...]]:
    """Further assays by the key of their round; rounds without any are left out."""
    return _by_owner(tx.rows(_further(t.round_assay, "round_id").where(t.round_assay.c.round_id.in_(list(keys)))))


def further_rows(tx: Transaction, round_key: int) -> Sequence[Row[Any]]:
    """The further assays of a round, in order, with `dataset`, `version_key`, `assay_id` and `position`."""
    return tx.rows(_further(t.round_assay, "round_id").where(t.round_assay.c.round_id == round_key))


def in_details(named: Named) -> dict[str, Any]:
    """What audit events say of further assays: nothing where there is none."""
    return {"further": dict(named)} if named else {}


def _by_owner(rows: Sequence[Row[Any]]) -> dict[int, tuple[AssayVersion, ...]]:
    found: dict[int, list[AssayVersion]] = defaultdict(list)
    for row in rows:
        found[row.owner].append(AssayVersion(row.dataset, row.content_hash, row.next_hash))
    return {owner: tuple(assays) for owner, assays in found.items()}


def _further(table: Table, owner: str) -> Select[Any]:
    version, after = t.dataset_version, t.dataset_version.alias("after")
    columns = (
        table.c[owner].label("owner"),
        table.c.position,
        t.dataset.c.name.label("dataset"),
        version.c.id.label("version_key"),
        version.c.assay_id,
        version.c.content_hash,
    )
    joined = table.join(version, version.c.id == table.c.dataset_version_id).join(t.dataset)
    if "next_version_id" not in table.c:
        query = select(*columns, null().label("next_hash")).select_from(joined)
    else:
        joined = joined.outerjoin(after, after.c.id == table.c.next_version_id)
        query = select(*columns, after.c.content_hash.label("next_hash")).select_from(joined)
    return query.order_by(table.c[owner], table.c.position)
