"""Do the stated intervals hold what is measured?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm


def coverage(
    measured: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64], level: float = 0.9
) -> float:
    """Share of measured values within the central normal interval mean +- z std at `level`, all (n,)."""
    half_width = norm.ppf(0.5 + level / 2) * std
    return float(np.mean(np.abs(measured - mean) <= half_width))


def interval_scale(
    measured: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64], level: float = 0.9
) -> float:
    """The factor on std at which the interval covers a share `level` of the measured values.

    The conformal quantile: the ceil((n + 1) level)-th smallest |measured - mean| / std (at most the largest), over z.
    """
    ratios = np.sort(np.abs(measured - mean) / np.maximum(std, 1e-12))
    rank = min(int(np.ceil((len(ratios) + 1) * level)), len(ratios))
    return float(ratios[rank - 1] / norm.ppf(0.5 + level / 2))
