"""SVDD-R: the M next states of all n chains compete with each other.

Source: Uehara et al. 2025, "Reward-Guided Controlled Generation for Inference-Time Alignment in Diffusion Models"
(SVDD with resampling across the batch). At each step n of the n M proposals go on, by systematic resampling in log
space with weights

    exp((v_s(x_s) - v_t(x_t)) / temperature),

x_t the state that proposed x_s; at the last step v_s is the reward of the finished design. Drawing one proposal within
each chain and then n chains in proportion to their mean weights has the same expected counts and more noise.

M -> `num_proposals`, alpha -> `temperature` (assay standard deviations per nat), v -> `value`: the reward of the
likeliest or of a drawn completion (as SVDD-PM), or a network learned from rollouts (as SVDD-MC).

Owed, for every choice of v: the law prior * exp(reward / temperature) / Z as the chains of a batch grow, and an
unbiased evidence; a better v needs fewer chains. Known limits: the designs of a batch share ancestors, so they are less
diverse than independent draws, and many may be equal at low temperatures.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Generator

from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _rollout_values, _svdd
from plait.samplers._rollout_values import RegressionConfig
from plait.samplers._svdd import Completion, DecodingConfig, State, Value
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False


class Config(DecodingConfig, RegressionConfig):
    """Settings of SVDD-R; those of the value network count only where `value` is one."""

    temperature: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="assay standard deviations per nat; default .2 up to 16 positions, less for longer ones",
    )
    value: Literal["likeliest", "drawn", "soft", "mean"] = Field(
        "likeliest",
        description="of a state: the reward of its likeliest or of a drawn completion, or a network that learned the "
        "soft value or the mean reward from rollouts",
    )


def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Fit the value network, if one is asked for; the data are not used.

    Raises:
        ConfigError: No objective, or readings that do not vary.
    """
    goal = _svdd.require(objective, "svdd_r")
    temperature = _svdd.temperature_of(config, prior)
    value: Value
    if config.value in ("soft", "mean"):
        value = _rollout_values.fit(config, prior, goal, config.value, temperature, generator, progress)
    else:
        value = Completion(goal, config.value == "drawn")
    return State(config, prior, goal, temperature, value, is_across=True)


def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Decode n designs, batch_size of them competing at a time; log-weights are 0."""
    return _svdd.run(state, n, generator, progress)
