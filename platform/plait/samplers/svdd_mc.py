"""SVDD-MC: of M next states keep one by a value network, learned once from the prior's own rollouts.

Source: Li et al. 2024, "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based
Decoding", SVDD-MC (Monte Carlo regression). prepare() regresses v(x_t, t) on the rewards of rollouts; at each step one
of M proposals is drawn with probability in proportion to exp(v(x_s, s) / temperature), at the last step by the reward
of the finished design itself.

    target = "soft":  v -> temperature * log E[exp(reward / temperature) | x_t],
    target = "mean":  v -> E[reward | x_t].

M -> `num_proposals`, alpha -> `temperature` (assay standard deviations per nat), v -> `target`.

Only "soft" aims at the law prior * exp(reward / temperature) / Z, and meets it as M, the rollouts and the network grow.
At a temperature at which fewer than 32 rollouts would carry the weight, it learns the value at the lowest one that can
be learned; more `num_rollouts` bring it nearer. The step is an input of the network. Decoding costs hardly more
forwards of the prior than ancestral sampling: only winners are forwarded. The reward may be a black box.
"""

from __future__ import annotations

from pydantic import Field
from torch import Generator

from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _rollout_values, _svdd
from plait.samplers._rollout_values import RegressionConfig, Target
from plait.samplers._svdd import DecodingConfig, State
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False


class Config(DecodingConfig, RegressionConfig):
    """Settings of SVDD-MC."""

    target: Target = Field(
        "soft", description="what the network learns: soft (temperature * log E exp(reward / temperature)) or mean"
    )


def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Roll out the prior and fit the value network; the data are not used.

    Raises:
        ConfigError: No objective, readings that do not vary, or soft values at temperature 0.
    """
    goal = _svdd.require(objective, "svdd_mc")
    temperature = _svdd.temperature_of(config, prior)
    value = _rollout_values.fit(config, prior, goal, config.target, temperature, generator, progress)
    return State(config, prior, goal, temperature, value)


def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Decode n designs, each by its own chain; log-weights are 0."""
    return _svdd.run(state, n, generator, progress)
