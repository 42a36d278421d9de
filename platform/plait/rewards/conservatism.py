"""Conservatism: pure functions of a Prediction and a standard deviation, and the objective made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from plait.design.errors import ConfigError
from plait.rewards.base import Prediction, RewardModel, Uncertainty

Kind = Literal["none", "boot", "bonus", "rarity"]


def lower_confidence_bound(prediction: Prediction, std: Tensor, scale: float) -> Tensor:
    """The mean less `scale` standard deviations, (n,), in the assay's unit; a scale below 0 is optimism."""
    return prediction.mean - scale * std


def minimum(prediction: Prediction) -> Tensor:
    """The most pessimistic member, (n,), in the assay's unit."""
    return prediction.members.min(0).values


@dataclass(frozen=True)
class ObjectiveValue:
    """An objective's view of n items, each (n,) float32 in the objective's unit (the assay's, where there is one).

    prediction is what the members of the one reward model say, None where there are several assays.
    """

    conservative: Tensor
    mean: Tensor
    std: Tensor
    prediction: Prediction | None = None


class Objective(Protocol):
    """What designs are optimised for; higher is better.

    Attributes:
        scale: Standard deviations subtracted from the mean: > 0 conservative, 0 the mean itself, < 0 optimistic.
        assay_std: The yardstick in which kl_weight and temperatures are given, in the objective's unit: the standard
            deviation of the offline readings.
        has_uncertainty: Something tells where the reward is not to be trusted.
        is_differentiable: Gradients flow to a simplex x.
    """

    @property
    def scale(self) -> float: ...  # noqa: D102

    @property
    def assay_std(self) -> float: ...  # noqa: D102

    @property
    def has_uncertainty(self) -> bool: ...  # noqa: D102

    @property
    def is_differentiable(self) -> bool: ...  # noqa: D102

    def __call__(self, x: Tensor) -> ObjectiveValue:
        """The value of designs: tokens (n, L) int64 or, where differentiable, a simplex (n, L, V)."""
        ...


@dataclass(frozen=True)
class ConservativeReward:
    """One assay's reward model, made pessimistic (or optimistic) by an uncertainty: an Objective.

    Attributes:
        reward: The optimiser's reward model.
        uncertainty: What is subtracted, or None (std is then the members' spread, only reported).
        scale: Standard deviations to subtract; 0 = the plain mean, below 0 the uncertainty is sought.
        assay_std: Standard deviation of the offline readings, in the assay's unit.
    """

    reward: RewardModel
    uncertainty: Uncertainty | None
    scale: float
    assay_std: float

    @property
    def has_uncertainty(self) -> bool:
        """An uncertainty was fitted."""
        return self.uncertainty is not None

    @property
    def is_differentiable(self) -> bool:
        """Both reward and uncertainty are."""
        return self.reward.is_differentiable and (self.uncertainty is None or self.uncertainty.is_differentiable)

    def __call__(self, x: Tensor) -> ObjectiveValue:
        """The conservative value of tokens (n, L) int64 or a simplex (n, L, V)."""
        return self.value_of(x, self.reward.predict(x))

    def value_of(self, x: Tensor, prediction: Prediction) -> ObjectiveValue:
        """The value of x where the reward's prediction of x is known already."""
        std = self.uncertainty.std(x, prediction) if self.uncertainty is not None else prediction.std
        conservative = lower_confidence_bound(prediction, std, self.scale)
        return ObjectiveValue(conservative, prediction.mean, std, prediction)


def require_differentiable(objective: Objective, algorithm: str) -> None:
    """Refuse an objective without gradients, at construction.

    Raises:
        ConfigError: The objective is a black box.
    """
    if not objective.is_differentiable:
        raise ConfigError(
            f"{algorithm} follows the gradient of the reward, and this reward is not differentiable",
            hint="use a derivative-free method: the samplers best_of_n, svdd_pm, smc, or the fine-tuners ppo, "
            "reward_weighted_mle, path_consistency",
        )


def require_yardstick(objective: Objective) -> None:
    """Refuse an objective whose readings do not vary.

    Raises:
        ConfigError: assay_std is not positive.
    """
    if not objective.assay_std > 0:
        raise ConfigError(
            f"the assay's standard deviation is {objective.assay_std}", hint="readings that are all equal teach nothing"
        )


SHORT_DESIGN = 16


def default_kl_weight(num_free: int) -> float:
    """A leash for designs with this many free positions, in assay standard deviations per nat of path KL.

    0.2 up to 16 of them, then falling with the 2.5th power of their number (0.01 at about 53): the path KL that designs
    can afford grows with it, and positions that are fixed have none. Also the default temperature of samplers: they aim
    at the same law, prior * exp(reward / kl_weight).
    """
    return 0.2 * math.pow(min(1.0, SHORT_DESIGN / num_free), 2.5)
