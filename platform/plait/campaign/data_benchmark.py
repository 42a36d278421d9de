"""What a dataset can teach, measured before any design is made: noise ceiling, held-out rank correlation, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from plait.campaign.assays import Assay
from plait.campaign.jobs import fit_reward, fitted_once
from plait.campaign.ports import Scorers
from plait.campaign.report_data import DataBenchmark
from plait.metrics.intervals import coverage
from plait.metrics.noise import label_warning, noise_ceiling
from plait.metrics.ranks import spearman
from plait.rewards.splits import hold_out

HELD_OUT = 0.2
MOST_POINTS = 2_000


def benchmark(assay: Assay, *, algorithm: str, settings: dict[str, Any], seed: int, scorers: Scorers) -> DataBenchmark:
    """Fit the reward on four fifths of the sequence groups and judge it on the rest.

    Args:
        assay: The data; values are shown in its own direction.
        algorithm: File in rewards/.
        settings: Its settings.
        seed: Of the split and the fit.
        scorers: Of black-box rewards.
    """
    dataset, readings, sign = assay.dataset, assay.readings, assay.sign
    source = "replicates" if len(set(readings.replicates)) > 1 else "std column" if readings.stds is not None else ""
    kept, held_out = (dataset.take(rows) for rows in hold_out(dataset, seed, HELD_OUT))
    reward: Any = fit_reward(algorithm, fitted_once(algorithm) | settings, kept, seed, scorers)
    prediction = reward.predict(torch.from_numpy(held_out.tokens))
    mean = prediction.mean.double().numpy()
    std = prediction.std.double().numpy() * reward.calibration.interval_scale
    ceiling = noise_ceiling(dataset.values, dataset.noise_std, dataset.counts)
    skill = spearman(mean, held_out.values)
    known = dataset.noise_std[np.isfinite(dataset.noise_std)]
    rng = np.random.default_rng(seed)
    shown = rng.permutation(len(held_out))[:MOST_POINTS]
    items = rng.permutation(len(dataset))[:5_000]
    return DataBenchmark(
        num_items=len(dataset),
        num_readings=len(readings),
        values=tuple((sign * dataset.values[items]).tolist()),
        noise_std=float(np.sqrt(np.mean(known**2))) if len(known) else None,
        noise_source=source if len(known) else "",
        ceiling=None if ceiling is None else ceiling.spearman,
        held_out_spearman=skill,
        coverage_90=coverage(held_out.values, mean, std),
        warning=label_warning(ceiling, skill),
        predicted=tuple((sign * mean[shown]).tolist()),
        observed=tuple((sign * held_out.values[shown]).tolist()),
    )
