"""How far a reward model can be trusted: its predictions against held-out readings it never saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plait.design.records import Dataset
from plait.metrics.intervals import coverage, interval_scale
from plait.metrics.noise import noise_ceiling
from plait.metrics.ranks import spearman
from plait.rewards.base import Prediction


@dataclass(frozen=True)
class Calibration:
    """A model's record on held-out groups of sequences; plain numbers, so that it is stored with the model.

    Attributes:
        spearman: Rank correlation of predicted mean and measured value.
        coverage_90: Share of measured values inside mean +- 1.645 std, as the model states it.
        interval_scale: Factor on std at which that interval holds 90% of the measured values (noise included).
        rmse: Root mean squared error, in the assay's unit.
        num_held_out: Held-out items.
        noise_ceiling: Best attainable Spearman given the readings' noise; None where nothing tells the noise.
    """

    spearman: float
    coverage_90: float
    interval_scale: float
    rmse: float
    num_held_out: int
    noise_ceiling: float | None = None


def calibrate(prediction: Prediction, held_out: Dataset) -> Calibration:
    """Judge predictions of items that the model was not fitted on.

    Args:
        prediction: Of the n items of held_out, in their order.
        held_out: n items of groups that the model never saw.
    """
    mean = prediction.mean.detach().cpu().double().numpy()
    std = prediction.std.detach().cpu().double().numpy()
    ceiling = noise_ceiling(held_out.values, held_out.noise_std, held_out.counts)
    return Calibration(
        spearman=spearman(mean, held_out.values),
        coverage_90=coverage(held_out.values, mean, std),
        interval_scale=interval_scale(held_out.values, mean, std),
        rmse=float(np.sqrt(np.mean((held_out.values - mean) ** 2))),
        num_held_out=len(held_out),
        noise_ceiling=None if ceiling is None else ceiling.spearman,
    )
