"""STRL: reward backpropagation without any leash, the baseline that over-optimises.

Source: the unregularised baseline of Uehara et al. 2024 (BRAID). Maximises

    E_policy[ r(x) ] / assay_std,

r = mean of `objective.reward`. The path KL is reported and not penalised. Known limit, and the point of it: the proxy
reward rises while the true one stalls or falls, and designs collapse to a few.
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
from plait.rewards.conservatism import Objective

needs_gradient = True
divided = ("batch_size",)


class Config(RolloutConfig):
    """Settings of STRL."""

    kl_weight: float = Field(0.0, ge=0, le=0, description="always 0: a leash would make it DRAKES")


def init(
    config: Config, prior: DiffusionPrior, objective: Objective, dataset: Dataset | None, generator: Generator
) -> BackpropState:
    """The state before the first update; the offline data are not used beyond the objective.

    Raises:
        ConfigError: The objective is pessimistic, or the reward is not differentiable.
    """
    if objective.scale != 0 or objective.has_uncertainty:
        raise ConfigError(
            "strl takes the reward as it is, but conservatism names an uncertainty",
            hint="use the fine-tuner braid, or conservatism kind none",
        )
    return _direct_backprop.init(config, prior, objective, config.kl_weight, generator)


def step(state: BackpropState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One update, in place.

    Raises:
        RunFailedError: The loss is not finite.
    """
    return _direct_backprop.step(state, average_gradients, num_pieces)
