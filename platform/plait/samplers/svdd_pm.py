"""SVDD-PM: of M next states keep one by the reward of the finished design that the prior sees in it. No training.

Source: Li et al. 2024, "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based
Decoding", SVDD-PM (posterior mean). At each step one of M proposals is drawn with probability in proportion to

    exp(r(complete(x_s)) / temperature),   complete(x) = the likeliest letters given x, or letters drawn given x.

M -> `num_proposals`, alpha -> `temperature` (assay standard deviations per nat; the paper's default is .01 in the
reward's own unit, here it is the temperature that all methods share, so that all aim at one law).

Known limits: the reward of a completion is not the soft value, so the designs' law is not prior * exp(reward /
temperature) / Z even for many proposals; it costs one forward for every proposal that moves. The reward may be a black
box.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Generator

from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _svdd
from plait.samplers._svdd import Completion, DecodingConfig, State
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False


class Config(DecodingConfig):
    """Settings of SVDD-PM."""

    completion: Literal["likeliest", "drawn"] = Field(
        "likeliest", description="letters at masked positions of what the reward judges"
    )


def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Nothing to compute; the data are not used.

    Raises:
        ConfigError: No objective, or readings that do not vary.
    """
    goal = _svdd.require(objective, "svdd_pm")
    value = Completion(goal, config.completion == "drawn")
    return State(config, prior, goal, _svdd.temperature_of(config, prior), value)


def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Decode n designs, each by its own chain; log-weights are 0."""
    return _svdd.run(state, n, generator, progress)
