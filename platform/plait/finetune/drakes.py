"""DRAKES: direct reward backpropagation with a KL leash, the reward taken at its word.

Source: Wang et al. 2025, "Fine-Tuning Discrete Diffusion Models via Reward Optimization with Applications to DNA and
Protein Design". Maximises

    E_policy[ r(x) ] / assay_std - kl_weight * KL(path of policy || path of prior),

r = `objective.reward` (its mean), with `objective.scale` = 0. The published KL weights unmasked positions and is 0 on
hard states; here it is exact, so published weights do not transfer.
"""

from __future__ import annotations

from pydantic import Field
from torch import Generator

from plait.design.errors import ConfigError
from plait.design.records import Dataset
from plait.finetune import _direct_backprop
from plait.finetune._direct_backprop import BackpropState, RolloutConfig
from plait.finetune.base import Info
from plait.priors.base import AverageGradients, DiffusionPrior, keep_gradients
from plait.rewards.conservatism import Objective, default_kl_weight

needs_gradient = True
divided = ("batch_size",)


class Config(RolloutConfig):
    """Settings of DRAKES."""

    kl_weight: float | None = Field(
        None,
        gt=0,
        le=100,
        description="assay standard deviations per nat of path KL; default .2 up to 16 positions, less for longer ones",
    )


def init(
    config: Config, prior: DiffusionPrior, objective: Objective, dataset: Dataset | None, generator: Generator
) -> BackpropState:
    """The state before the first update; the offline data are not used beyond the objective.

    Raises:
        ConfigError: The objective is pessimistic (that is BRAID), or the reward is not differentiable.
    """
    if objective.scale != 0:
        raise ConfigError(
            f"drakes takes the reward as it is, but conservatism has scale {objective.scale}",
            hint="use the fine-tuner braid, or conservatism kind none",
        )
    weight = default_kl_weight(prior.space.num_free) if config.kl_weight is None else config.kl_weight
    return _direct_backprop.init(config, prior, objective, weight, generator)


def step(state: BackpropState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One update, in place.

    Raises:
        RunFailedError: The loss is not finite.
    """
    return _direct_backprop.step(state, average_gradients, num_pieces)
