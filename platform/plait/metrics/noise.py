"""How well the truth itself could predict the readings, and whether labels are mostly noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOSTLY_NOISE = 0.5
_LEARNS_LITTLE = 0.2


@dataclass(frozen=True)
class NoiseCeiling:
    """The best that any predictor can reach on these values.

    Attributes:
        reliability: Share of the values' variance that is not noise, 0 to 1.
        pearson: Correlation of the truth with the values, sqrt(reliability).
        spearman: The same by ranks, for normal values: 6/pi asin(pearson / 2).
    """

    reliability: float
    pearson: float
    spearman: float


def noise_ceiling(
    values: NDArray[np.float64], noise_std: NDArray[np.float64], counts: NDArray[np.int64]
) -> NoiseCeiling | None:
    """The ceiling of item values, or None where nothing tells the noise.

    Args:
        values: (n,) means over each item's readings.
        noise_std: (n,) standard deviation of one reading, NaN where unknown.
        counts: (n,) readings behind each value.
    """
    known = np.isfinite(noise_std)
    variance = float(np.var(values)) if len(values) else 0.0
    if not known.any() or variance <= 0:
        return None
    noise = float(np.mean(noise_std[known] ** 2 / counts[known]))
    reliability = float(np.clip(1.0 - noise / variance, 0.0, 1.0))
    pearson = math.sqrt(reliability)
    return NoiseCeiling(reliability, pearson, 6.0 / math.pi * math.asin(pearson / 2.0))


def replicate_ceiling(first: NDArray[np.float64], second: NDArray[np.float64]) -> NoiseCeiling:
    """The ceiling of one replicate's values from two replicates of the same items, both (n,).

    The correlation of two replicates is the reliability of one.
    """
    correlation = float(np.corrcoef(first, second)[0, 1]) if np.std(first) > 0 and np.std(second) > 0 else 0.0
    reliability = min(max(correlation, 0.0), 1.0)
    pearson = math.sqrt(reliability)
    return NoiseCeiling(reliability, pearson, 6.0 / math.pi * math.asin(pearson / 2.0))


def label_warning(ceiling: NoiseCeiling | None, held_out_spearman: float) -> str:
    """A plain warning where labels are mostly noise or teach a model next to nothing; "" where neither shows."""
    if ceiling is not None and ceiling.reliability < _MOSTLY_NOISE:
        return (
            f"labels are mostly noise: {1 - ceiling.reliability:.0%} of their variance is measurement noise, so no "
            f"model can rank them better than Spearman {ceiling.spearman:.2f}; add replicates before trusting designs"
        )
    if held_out_spearman < _LEARNS_LITTLE:
        return (
            f"a model fitted on these labels ranks held-out ones with Spearman {held_out_spearman:.2f} only: they are "
            "mostly noise, or depend on what the sequence does not show; add replicates or a wider range of values "
            "before trusting designs"
        )
    return ""
