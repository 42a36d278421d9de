"""Sequences: one row for each distinct one, whoever measured or designed it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select

from plait.design.errors import BadInputError
from plait.registry import tables as t
from plait.registry.transaction import Transaction

LONGEST = 2_000
"""Letters of a sequence: what fits into an index of PostgreSQL."""

CHUNK = 10_000
"""Values in one query: below the limits of both databases."""

FEW = 4
"""Up to this many registered sequences for each one wanted, reading them all is faster."""


def sequence_ids(tx: Transaction, alphabet: str, sequences: Iterable[str]) -> dict[str, int]:
    """The key of every sequence; new ones are registered (call under `lock`).

    Raises:
        BadInputError: A sequence is longer than 2,000 letters.
    """
    distinct = list(dict.fromkeys(sequences))
    if (longest := max(map(len, distinct), default=0)) > LONGEST:
        raise BadInputError(f"a sequence has {longest} letters; the registry keeps up to {LONGEST}")
    known = _known(tx, alphabet, distinct)
    new = [letters for letters in distinct if letters not in known]
    keys = tx.insert_many(t.sequence, [{"alphabet": alphabet, "letters": letters} for letters in new])
    return known | dict(zip(new, keys, strict=True))


def _known(tx: Transaction, alphabet: str, distinct: list[str]) -> dict[str, int]:
    query = select(t.sequence.c.letters, t.sequence.c.id).where(t.sequence.c.alphabet == alphabet)
    chunks = [distinct[start : start + CHUNK] for start in range(0, len(distinct), CHUNK)]
    total = tx.connection.execute(select(func.count()).where(t.sequence.c.alphabet == alphabet)).scalar_one()
    is_reading_all = total < FEW * len(distinct)  # cheaper than asking for each
    queries = [query] if is_reading_all else [query.where(t.sequence.c.letters.in_(chunk)) for chunk in chunks]
    return {row.letters: row.id for query in queries for row in tx.rows(query)}
