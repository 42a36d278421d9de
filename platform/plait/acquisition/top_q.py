"""The best q by conservative value, pairwise at least a given Hamming distance apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from plait.acquisition.base import Pool


class Config(BaseModel):
    """top_q has no settings of its own; batch size and distance are the campaign's."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def select(
    config: Config, pool: Pool, q: int, min_distance: int, taken: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Greedy choice: the best remaining candidate that is far enough from all chosen so far.

    Each chosen design rules out its neighbours in one pass over the pool, so the cost is q n L. In a strand-symmetric
    space the distance of two designs is the smaller one over both strands.

    Args:
        config: Nothing to set.
        pool: Candidates.
        q: Designs wanted.
        min_distance: Smallest Hamming distance between any two chosen; 1 and below means distinct items.
        taken: (k, L) int64 measured or pending items, never chosen again.
        rng: Not used.

    Returns:
        (<= q,) int64 indices into the pool, best first; fewer than q where the pool holds no more.
    """
    items = pool.space.canonical(pool.tokens)
    order = np.argsort(-pool.conservative, kind="stable")
    is_free = ~_is_among(items, pool.space.canonical(taken)) & np.isfinite(pool.conservative)
    chosen: list[int] = []
    for candidate in order:
        if len(chosen) == q:
            break
        if is_free[candidate]:
            chosen.append(int(candidate))
            is_free &= _distance(pool, items, items[candidate]) >= max(min_distance, 1)
    return np.array(chosen, dtype=np.int64)


def _is_among(items: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) bool: which rows of items (n, L) are rows of others (k, L)."""
    known = {row.tobytes() for row in np.ascontiguousarray(others)}
    return np.array([row.tobytes() in known for row in np.ascontiguousarray(items)], dtype=bool)


def _distance(pool: Pool, items: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hamming distance (n,) of items (n, L) to one item (L,), over both strands where they are one item."""
    distance = (items != item).sum(1)
    if pool.space.strand_symmetric:
        twin = pool.space.alphabet.complement_tokens()[item[::-1]]
        distance = np.minimum(distance, (items != twin).sum(1))
    return np.asarray(distance)
