"""Rank statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Values = NDArray[np.float32] | NDArray[np.float64]


def pearson(a: Values, b: Values) -> float:
    """Pearson correlation of two (n,) arrays; 0 where either is constant or n < 2."""
    if len(a) < 2:
        return 0.0
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 1e-12 * len(x) else 0.0


def spearman(a: Values, b: Values) -> float:
    """Spearman rank correlation of two (n,) arrays, ties at their mean rank; 0 where either is constant or n < 2."""
    return pearson(rankdata(a), rankdata(b))


def partial_spearman(a: Values, b: Values, given: Values) -> float:
    """Rank correlation of two (n,) arrays at equal ranks of a third: what is left of each after a line through it.

    0 where a rank does not vary, or where the third says all that one of them does.
    """
    ab, ag, bg = spearman(a, b), spearman(a, given), spearman(b, given)
    left = (1 - ag * ag) * (1 - bg * bg)
    return (ab - ag * bg) / float(np.sqrt(left)) if left > 1e-12 else 0.0


def quantile_summary(values: Values) -> dict[str, float]:
    """The 10%, 50% and 90% quantiles, the mean and the best of (n,) values; empty for no values."""
    if len(values) == 0:
        return {}
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
    return {
        "q10": float(low),
        "median": float(median),
        "q90": float(high),
        "mean": float(np.mean(values)),
        "best": float(np.max(values)),
    }
