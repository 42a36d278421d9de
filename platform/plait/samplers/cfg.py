"""Classifier-free guidance: the prior is taught which bin each measured value fell into, and sampled at the best.

Source: Ho & Salimans 2022, "Classifier-Free Diffusion Guidance"; for discrete states Schiff et al. 2024, "Simple
Guidance Mechanisms for Discrete Diffusion Models" (letters normalised at each position, as here) and Nisonoff et al.
2024, "Unlocking Guidance for Discrete State-Space Diffusion and Flow Models" (rates not normalised: there guidance
also changes when a position is filled). A step draws letters from

    p(. | none) (p(. | y) / p(. | none))^(1 + gamma), normalised,

y = the highest of `num_bins` quantile bins of the data's values, gamma = `guidance`. One network gives both: the
prior trained on from its weights, on the measured items, with its condition dropped now and then. The reward model is
not used.

Known limits: what is aimed at is the law of the data's best bin sharpened step by step; for gamma > 0 that is not the
law p(x | y)^(1 + gamma) p(x)^(-gamma), and for no gamma prior * exp(reward / temperature). It knows only what the
best bin's items show, so few items teach little: State.bounds tells how much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _conditions
from plait.samplers._conditions import ConditionsConfig, State
from plait.samplers.base import Samples

needs_reward = False
needs_gradient = False


class Config(ConditionsConfig):
    """Settings of classifier-free guidance."""


def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Train the conditional model; the objective is not used.

    Raises:
        ConfigError: No data, too few, of equal values or outside the prior's space; a prior that hears no condition.
    """
    return _conditions.prepare("cfg", config, prior, dataset, _equally, generator, progress)


def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Independent designs guided to the best bin; log-weights are 0."""
    return _conditions.sample(state, n, generator, progress)


def _equally(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.ones_like(values)
