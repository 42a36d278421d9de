"""The best q by conservative value, pairwise at least a given Hamming distance apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from plait.acquisition._choosing import Choice, feasible_first
from plait.acquisition.base import Pool


class Config(BaseModel):
    """Settings of top_q; batch size and distance are the campaign's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_feasibility: float = Field(
        0.5, ge=0, le=1, description="candidates less likely to meet all thresholds come after all others"
    )


def select(
    config: Config, pool: Pool, q: int, min_distance: int, taken: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Greedy choice: the best remaining candidate that is far enough from all chosen so far.

    Where the pool says how likely candidates meet the thresholds, those below min_feasibility are chosen only when no
    other is left, the likeliest first: the wells of a plate are there anyway, and measuring teaches the constraint.

    Args:
        config: min_feasibility.
        pool: Candidates.
        q: Designs wanted.
        min_distance: Smallest Hamming distance between any two chosen; 1 and below means distinct items.
        taken: (k, L) int64 measured or pending items, never chosen again.
        rng: Not used.

    Returns:
        (<= q,) int64 indices into the pool, best first; fewer than q where the pool holds no more.
    """
    order = np.argsort(-pool.conservative, kind="stable")
    return Choice(pool, min_distance, taken).fill(feasible_first(pool, order, config.min_feasibility), q)
