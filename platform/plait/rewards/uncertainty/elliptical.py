"""The elliptical bonus: how far features lie from all measured ones, in the metric of the data.

    std(x) = sigma * sqrt( phi(x)^T (sum_i c_i phi_i phi_i^T + lambda I)^-1 phi(x) )

phi is the reward's last hidden layer with a 1 appended, c_i the readings behind item i, sigma the standard deviation
of one reading's residual: the posterior deviation of a Bayesian linear read-out. The sum is over the whole offline
set, so the bonus shrinks as data grows. Source: Uehara et al. (2024), Bridging Model-Based Optimization and Generative
Modeling via Conservative Fine-Tuning of Diffusion Models (BRAID), the bonus penalty.
Deterministic and fitted in well under a second for 2,000 items, so it is fitted again rather than stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from plait.design.errors import ConfigError
from plait.design.records import Dataset
from plait.rewards.base import ElboFunction, FeatureModel, Prediction, RewardModel

RIDGE = 1.0
"""lambda, in squared feature units (one pseudo-reading along every direction)."""


@dataclass(eq=False)
class EllipticalBonus:
    """A fitted bonus.

    Attributes:
        reward: Gives the features.
        sigma: Standard deviation of one reading's residual, in the assay's unit.
        factor: (d + 1, d + 1) float32 lower Cholesky factor of the feature covariance sum.
    """

    reward: FeatureModel
    sigma: float
    factor: Tensor
    is_differentiable: bool

    def std(self, x: Tensor, prediction: Prediction) -> Tensor:
        """(n,) float32 in the assay's unit: one triangular solve per batch; gradients flow to a simplex x."""
        phi = with_one(self.reward.features(x))
        solved = torch.linalg.solve_triangular(self.factor.to(phi.device), phi.T, upper=False)
        return self.sigma * torch.sqrt((solved**2).sum(0) + 1e-12)


def with_one(features: Tensor) -> Tensor:
    """(n, d) features with a column of ones, (n, d + 1)."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def fit(dataset: Dataset, reward: RewardModel, elbo: ElboFunction | None) -> EllipticalBonus:
    """The bonus of `reward` over the items it was fitted on.

    Raises:
        ConfigError: The reward shows no features.
    """
    if not callable(getattr(reward, "features", None)):
        raise ConfigError(
            f"the elliptical bonus needs a reward with features, {type(reward).__name__} has none",
            hint="use an ensemble, or conservatism kind boot",
        )
    model = cast(FeatureModel, reward)
    tokens = torch.as_tensor(dataset.tokens)
    counts = torch.as_tensor(dataset.counts, dtype=torch.float64)
    with torch.no_grad():
        phi = with_one(model.features(tokens)).cpu().double()
        residual = model.predict(tokens).mean.cpu().double() - torch.as_tensor(dataset.values)
    gram = (phi * counts[:, None]).T @ phi + RIDGE * torch.eye(phi.shape[1], dtype=torch.float64)
    sigma = float(torch.sqrt((counts * residual**2).sum() / len(dataset)))
    return EllipticalBonus(model, sigma, torch.linalg.cholesky(gram).float(), reward.is_differentiable)
