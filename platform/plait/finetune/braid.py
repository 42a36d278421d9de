"""BRAID: doubly conservative fine-tuning, a pessimistic reward and a KL leash.

Source: Uehara et al. 2024, "Bridging Model-Based Optimization and Generative Modeling via Conservative Fine-Tuning of
Diffusion Models". Maximises

    E_policy[ r(x) - scale * g(x) ] / assay_std - kl_weight * KL(path of policy || path of prior),

r = mean of `objective.reward`, g = `objective.uncertainty` (BRAID-Boot: the spread of bootstrap members; BRAID-Bonus:
the elliptical bonus), scale = `objective.scale`. Pessimism keeps designs where the offline data can speak for them; the
leash keeps them plausible.
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
    """Settings of BRAID."""

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
        ConfigError: The objective is not pessimistic (that is DRAKES), or something is not differentiable.
    """
    if not objective.scale > 0 or not objective.has_uncertainty:
        raise ConfigError(
            "braid needs a pessimistic reward: an uncertainty and a scale above 0",
            hint="set conservatism to boot or bonus with a positive scale, or use the fine-tuner drakes",
        )
    weight = default_kl_weight(prior.space.num_free) if config.kl_weight is None else config.kl_weight
    return _direct_backprop.init(config, prior, objective, weight, generator)


def step(state: BackpropState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One update, in place.

    Raises:
        RunFailedError: The loss is not finite.
    """
    return _direct_backprop.step(state, average_gradients, num_pieces)
