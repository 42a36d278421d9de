"""Conservatism: pure functions of a Prediction and a standard deviation, and the objective made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from plait.rewards.base import Prediction, RewardModel, Uncertainty

Kind = Literal["none", "boot", "bonus"]


def lower_confidence_bound(prediction: Prediction, std: Tensor, scale: float) -> Tensor:
    """The mean less `scale` standard deviations, (n,), in the assay's unit."""
    return prediction.mean - scale * std


def minimum(prediction: Prediction) -> Tensor:
    """The most pessimistic member, (n,), in the assay's unit."""
    return prediction.members.min(0).values


@dataclass(frozen=True)
class ObjectiveValue:
    """An objective's view of n items, each (n,) float32 in the assay's unit."""

    conservative: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Objective:
    """What designs are optimised for: a reward model made pessimistic by an uncertainty.

    Attributes:
        reward: The optimiser's reward model.
        uncertainty: What is subtracted, or None for no pessimism (std is then the spread, only reported).
        scale: Standard deviations to subtract, >= 0 (0 = the plain mean).
        assay_std: Standard deviation of the offline readings: the yardstick in which kl_weight is given.
    """

    reward: RewardModel
    uncertainty: Uncertainty | None
    scale: float
    assay_std: float

    def __call__(self, x: Tensor) -> ObjectiveValue:
        """The conservative value of tokens (n, L) int64 or a simplex (n, L, V)."""
        prediction = self.reward.predict(x)
        std = self.uncertainty.std(x, prediction) if self.uncertainty is not None else prediction.std
        return ObjectiveValue(lower_confidence_bound(prediction, std, self.scale), prediction.mean, std)
