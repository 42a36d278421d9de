"""The seam between reward models, what they do not know, and everything that maximises them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from plait.design.records import Dataset
from plait.design.space import DesignSpace


@dataclass(frozen=True)
class Prediction:
    """What an ensemble says of n items.

    Attributes:
        members: (m, n) float32, each member's prediction in the assay's unit (higher is better).
        weights: (m,) float32, non-negative, sum 1.
        unit: The assay's unit.
    """

    members: Tensor
    weights: Tensor
    unit: str = ""

    @property
    def mean(self) -> Tensor:
        """Weighted mean over members, (n,)."""
        return (self.weights[:, None] * self.members).sum(0)

    @property
    def std(self) -> Tensor:
        """Weighted standard deviation over members, (n,); smooth at 0, finite where the members are."""
        centred = (self.members - self.mean).double()  # squares of large values overflow a float32
        return torch.sqrt((self.weights[:, None] * centred**2).sum(0) + 1e-12).to(self.members.dtype)


class RewardModel(Protocol):
    """A reward. x is tokens (n, L) int64 or, where is_differentiable, a simplex (n, L, V) float.

    Attributes:
        space: The design space.
        unit: The assay's unit.
        scale: Standard deviation of the readings it stands for, in that unit.
        is_differentiable: Gradients flow to a simplex.
    """

    space: DesignSpace
    unit: str
    scale: float
    is_differentiable: bool

    def predict(self, x: Tensor) -> Prediction:
        """Predictions in the assay's unit; gradients flow to a simplex x."""
        ...

    def save(self, directory: Path) -> str:
        """Write a bundle of kind "reward" and return its content hash."""
        ...


class FeatureModel(RewardModel, Protocol):
    """A reward model that shows its last hidden layer (what the elliptical bonus needs)."""

    def features(self, x: Tensor) -> Tensor:
        """(n, d) float32 last hidden activations, all members side by side or one member's."""
        ...


ElboFunction = Callable[[Tensor], Tensor]
"""Prior ELBO of tokens (n, L) int64 in nats, (n,)."""


class Uncertainty(Protocol):
    """What the reward does not know at x, in the assay's unit."""

    is_differentiable: bool

    def std(self, x: Tensor, prediction: Prediction) -> Tensor:
        """(n,) float32, non-negative."""
        ...


class FitUncertainty(Protocol):
    """Each file of rewards/uncertainty/ exports `fit` of this form."""

    def __call__(self, dataset: Dataset, reward: RewardModel, elbo: ElboFunction | None) -> Uncertainty:
        """The uncertainty of `reward`, which was fitted on `dataset`."""
        ...
