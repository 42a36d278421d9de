"""Which artifacts the rows of a registry speak of."""

from __future__ import annotations

import json

from sqlalchemy import Connection, String, select

from plait.campaign.fingerprints import hashes_in
from plait.registry._columns import Document, metadata
from plait.registry.tables import artifact
from plait.registry.transaction import Transaction

WITHOUT = ("sequence", "measurement", "dataset_version_measurement")
"""Tables, long ones, that name no artifact."""


def referred(tx: Transaction) -> set[str]:
    """Every SHA-256 that any row names, as an artifact or as anything else."""
    return referred_by(tx.connection)


def artifacts_of_models(connection: Connection) -> set[str]:
    """The artifacts that registered models cannot do without."""
    return set(connection.execute(select(artifact.c.sha256)).scalars())


def referred_by(connection: Connection) -> set[str]:
    """Every SHA-256 that any row names, as an artifact or as anything else."""
    found: set[str] = set()
    for table in metadata.sorted_tables:
        columns = [column for column in table.columns if isinstance(column.type, String | Document)]
        if table.name in WITHOUT or not columns:
            continue
        for row in connection.execute(select(*columns), execution_options={"yield_per": 5_000}):
            found |= hashes_in(json.dumps(list(row)))
    return found
