"""Uncertainty as disagreement: the weighted standard deviation over an ensemble's members."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from plait.design.records import Dataset
from plait.rewards.base import ElboFunction, Prediction, RewardModel


@dataclass(eq=False)
class BootstrapSpread:
    """The members' spread; members fitted on bootstrap resamples make it BRAID's Boot penalty."""

    is_differentiable: bool

    def std(self, x: Tensor, prediction: Prediction) -> Tensor:
        """(n,) float32 in the assay's unit; x is not looked at."""
        return prediction.std


def fit(dataset: Dataset, reward: RewardModel, elbo: ElboFunction | None) -> BootstrapSpread:
    """Nothing to fit: the spread is in every Prediction."""
    return BootstrapSpread(reward.is_differentiable)
