"""Readings as tilted normal scores: telling the good from the best counts for more than the noise among the rest.

Source: rank-based inverse normal transformation (van der Waerden scores), tilted exponentially as in importance
sampling of an upper tail:

    score(y) = exp(tilt * Phi^-1(rank(y))),  and Phi^-1(rank(y)) itself for tilt = 0.

A model fitted on scores by least squares spends itself on the readings from which designs are chosen. The map rises, so
that the order of designs is the same in both units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata
from torch import Tensor

from plait.design.records import Dataset

_NUM_KNOTS = 65
_LEAST_TILT = 0.01


@dataclass(frozen=True, eq=False)
class Warp:
    """A rising piecewise linear map between readings and scores, continued beyond both ends.

    Attributes:
        readings: (k,) float64, rising, in the assay's unit.
        scores: (k,) float64, rising.
    """

    readings: NDArray[np.float64]
    scores: NDArray[np.float64]

    def to_scores(self, readings: Tensor) -> Tensor:
        """Scores of readings or predictions in the assay's unit, any shape; gradients flow."""
        return _follow(readings, self.readings, self.scores)

    def to_readings(self, scores: Tensor) -> Tensor:
        """Readings, in the assay's unit, of scores of any shape; gradients flow."""
        return _follow(scores, self.scores, self.readings)

    def of_dataset(self, dataset: Dataset) -> Dataset:
        """The dataset with scores for values; noise is scaled by the ratio of their spreads."""
        values = self.to_scores(torch.from_numpy(dataset.values)).numpy()
        spread = float(dataset.values.std())
        ratio = float(values.std()) / spread if spread > 0 else 0.0
        return replace(dataset, values=values, noise_std=dataset.noise_std * ratio)


def fit_warp(values: NDArray[np.float64], tilt: float | None) -> Warp:
    """The warp of readings (n,), at least two of them distinct; a tilt of 0 leaves normal scores, None asks the tails.

    Readings that were cut from above show hardly a trace of what makes a design good, and all of them are needed to see
    it; once some stand out, the others only add noise. So by default the tilt is how much further the best percent lies
    from the median than the worst percent does, less one, between 0 and 1.
    """
    if tilt is None:
        low, middle, high = np.quantile(values, [0.01, 0.5, 0.99])
        tilt = float(np.clip((high - middle) / max(middle - low, 1e-9) - 1, 0, 1))
    normal = ndtri((rankdata(values) - 0.5) / len(values))
    readings, first = np.unique(values, return_index=True)
    normal = normal[first]
    grid = normal if len(normal) <= _NUM_KNOTS else np.linspace(normal[0], normal[-1], _NUM_KNOTS)
    knots, kept = np.unique(np.interp(grid, normal, readings), return_index=True)
    return Warp(knots, np.exp(tilt * grid[kept]) if tilt > _LEAST_TILT else grid[kept])


def _follow(values: Tensor, source: NDArray[np.float64], target: NDArray[np.float64]) -> Tensor:
    """The piecewise linear map from source to target; beyond an end it goes on with the slope of that half."""
    x, y = (torch.as_tensor(a, dtype=values.dtype, device=values.device) for a in (source, target))
    middle = len(x) // 2
    below, above = ((y[j] - y[i]) / (x[j] - x[i]) for i, j in ((0, max(middle, 1)), (min(middle, len(x) - 2), -1)))
    segment = (torch.searchsorted(x, values.detach().contiguous()) - 1).clamp(0, len(x) - 2)
    slope = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
    inside = torch.minimum(torch.maximum(values, x[0]), x[-1])
    beyond = above * (values - x[-1]).clamp_min(0) + below * (values - x[0]).clamp_max(0)
    return y[segment] + slope[segment] * (inside - x[segment]) + beyond
