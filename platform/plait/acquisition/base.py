"""The seam of batch choice: each algorithm is a module that exports Config and select."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from plait.design.space import DesignSpace


@dataclass(frozen=True)
class Pool:
    """Candidates to choose from.

    Attributes:
        space: Their design space.
        tokens: (n, L) int64, distinct items.
        mean: (n,) float64 predicted mean, assay's unit, higher is better.
        std: (n,) float64 its standard deviation.
        conservative: (n,) float64 the conservative value.
        values: (n, k) float64 conservative value in each of k assays, in standard deviations; None for one assay.
        feasibility: (n,) float64 P(all thresholds are met); None where there are none.
        front: (m, k) float64 readings of the items measured in all assays, in standard deviations; None for none.
    """

    space: DesignSpace
    tokens: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    conservative: NDArray[np.float64]
    values: NDArray[np.float64] | None = None
    feasibility: NDArray[np.float64] | None = None
    front: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.int64]) -> Pool:
        """The candidates at rows (k,) int64."""
        values, feasibility = (None if c is None else c[rows] for c in (self.values, self.feasibility))
        return replace(
            self,
            tokens=self.tokens[rows],
            mean=self.mean[rows],
            std=self.std[rows],
            conservative=self.conservative[rows],
            values=values,
            feasibility=feasibility,
        )


class Acquisition(Protocol):
    """The exports of a file in acquisition/."""

    Config: type[BaseModel]

    def select(
        self, config: Any, pool: Pool, q: int, min_distance: int, taken: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Indices into the pool, best first, at most q.

        Args:
            config: The algorithm's Config.
            pool: Candidates.
            q: Designs wanted.
            min_distance: Smallest Hamming distance between any two chosen (1 = distinct).
            taken: (k, L) int64 measured or pending items, never chosen again.
            rng: For algorithms that draw.
        """
        ...
