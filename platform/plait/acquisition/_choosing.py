"""What every choice of a batch keeps to: nothing taken, nothing too close to another, feasible designs first."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from plait.acquisition.base import Pool
from plait.design.space import DesignSpace


class Choice:
    """A batch being chosen from a pool: (n,) bool is_free says who may still join it.

    Each chosen design rules out its neighbours in one pass over the pool, so the cost is q n L. In a strand-symmetric
    space the distance of two designs is the smaller one over both strands.
    """

    def __init__(self, pool: Pool, min_distance: int, taken: NDArray[np.int64]) -> None:
        """Free are the candidates whose numbers are all finite and that are not among taken (k, L)."""
        self._pool, self._items, self._min_distance = pool, pool.space.canonical(pool.tokens), max(min_distance, 1)
        self.chosen: list[int] = []
        self.is_free = np.isfinite(pool.conservative) & ~_is_among(self._items, pool.space.canonical(taken))
        for column in (pool.values, pool.feasibility):
            if column is not None:
                self.is_free &= np.isfinite(column.reshape(len(column), -1)).all(1)

    def add(self, candidate: int) -> None:
        """Choose a free candidate."""
        self.chosen.append(candidate)
        self.is_free &= distance(self._pool.space, self._items, self._items[candidate]) >= self._min_distance

    def fill(self, order: Iterable[int], q: int) -> NDArray[np.int64]:
        """Choose along an order until there are q; all chosen, (<= q,) int64."""
        for candidate in order:
            if len(self.chosen) >= q:
                break
            if self.is_free[candidate]:
                self.add(int(candidate))
        return np.array(self.chosen, dtype=np.int64)


def is_feasible(pool: Pool, min_feasibility: float) -> NDArray[np.bool_]:
    """(n,) bool: P(feasible) is at least this, or nothing says how feasible candidates are."""
    if pool.feasibility is None:
        return np.ones(len(pool.tokens), dtype=bool)
    return np.asarray(pool.feasibility >= min_feasibility)


def feasible_first(pool: Pool, order: NDArray[np.int64], min_feasibility: float) -> NDArray[np.int64]:
    """The feasible candidates in the given order (n,), then the others, likeliest first."""
    feasible = is_feasible(pool, min_feasibility)[order]
    if pool.feasibility is None or feasible.all():
        return order
    others = order[~feasible]
    return np.concatenate([order[feasible], others[np.argsort(-pool.feasibility[others], kind="stable")]])


def _is_among(items: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) bool: which rows of items (n, L) are rows of others (k, L)."""
    known = {row.tobytes() for row in np.ascontiguousarray(others)}
    return np.array([row.tobytes() in known for row in np.ascontiguousarray(items)], dtype=bool)


def distance(space: DesignSpace, items: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hamming distance (n,) of items (n, L) to one item (L,), over both strands where they are one item."""
    differing = (items != item).sum(1)
    if space.strand_symmetric:
        twin = space.alphabet.complement_tokens()[item[::-1]]
        differing = np.minimum(differing, (items != twin).sum(1))
    return np.asarray(differing)
