"""Sequences: one row for each distinct one, whoever measured or designed it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from plait.design.errors import BadInputError
from plait.registry import tables as t
from plait.registry.transaction import Transaction

LONGEST = 2_000
"""Letters of a sequence: what fits into an index of PostgreSQL."""

CHUNK = 10_000
"""Values in one query: below the limits of both databases."""


def sequence_ids(tx: Transaction, alphabet: str, sequences: Iterable[str]) -> dict[str, int]:
    """The key of every sequence; new ones are registered (call under `lock`).

    Raises:
        BadInputError: A sequence is longer than 2,000 letters.
    """
    distinct = list(dict.fromkeys(sequences))
    if (longest := max(map(len, distinct), default=0)) > LONGEST:
        raise BadInputError(f"a sequence has {longest} letters; the registry keeps up to {LONGEST}")
    known: dict[str, int] = {}
    for start in range(0, len(distinct), CHUNK):
        query = select(t.sequence.c.letters, t.sequence.c.id).where(
            t.sequence.c.alphabet == alphabet, t.sequence.c.letters.in_(distinct[start : start + CHUNK])
        )
        known.update((row.letters, row.id) for row in tx.rows(query))
    new = [letters for letters in distinct if letters not in known]
    keys = tx.insert_many(t.sequence, [{"alphabet": alphabet, "letters": letters} for letters in new])
    return known | dict(zip(new, keys, strict=True))
