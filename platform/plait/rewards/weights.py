"""How much each measured item counts when a model is fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plait.design.records import Dataset


def item_weights(dataset: Dataset) -> NDArray[np.float32]:
    """Inverse-variance weights of the items' values, (n,) float32 with mean 1.

    The value of item i scatters around a model by the model's own misfit and by the noise of a mean over its
    readings: w_i = 1 / (1 + noise_i^2 / (count_i * signal)), signal = the variance of the values that noise does
    not explain (at least a tenth of it). Items of unknown noise count as having the median known noise; where none is
    known, all items weigh the same.
    """
    known = np.isfinite(dataset.noise_std)
    if not known.any():
        return np.ones(len(dataset), dtype=np.float32)
    noise = np.where(known, dataset.noise_std, np.median(dataset.noise_std[known])) ** 2 / dataset.counts
    variance = max(float(dataset.values.var()), 1e-12)
    signal = max(variance - float(noise.mean()), 0.1 * variance)
    weights = 1.0 / (1.0 + noise / signal)
    return np.asarray(weights / weights.mean(), dtype=np.float32)
