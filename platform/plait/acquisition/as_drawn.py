"""The first q designs in the order of the pool, pairwise at least a given Hamming distance apart.

For samplers that spread a batch on purpose (neutral_drift gives up predicted value for information): ranking their
designs again by the same reward would undo it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from plait.acquisition._choosing import Choice
from plait.acquisition.base import Pool


class Config(BaseModel):
    """as_drawn has no settings; batch size and distance are the campaign's."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def select(
    config: Config, pool: Pool, q: int, min_distance: int, taken: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The first designs that are free and far enough from those before them.

    Args:
        config: No settings.
        pool: Candidates in the order that they were drawn.
        q: Designs wanted.
        min_distance: Smallest Hamming distance between any two chosen; 1 and below means distinct items.
        taken: (k, L) int64 measured or pending items, never chosen again.
        rng: Not used.

    Returns:
        (<= q,) int64 indices into the pool, in the order of choice; fewer than q where the pool holds no more.
    """
    return Choice(pool, min_distance, taken).fill(range(len(pool.tokens)), q)
