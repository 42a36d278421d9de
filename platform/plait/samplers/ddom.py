"""DDOM: classifier-free guidance whose training looks hardest at the items of high value.

Source: Krishnamoorthy, Mashkaria & Grover 2023, "Diffusion Models for Black-Box Optimization". Training weighs items
by the bin of their value, `value_bins` bins of equal width, h = the share of the items in a bin, edge = its upper end:

    bin: v = softmax(edge / temp) * h / (h + smoothing), normalised over bins;   item: w = clip(v / h, 0, 5),

temp = |90% quantile of the values - their maximum|: high bins count more, and sparse ones not more than their few
items bear out. Sampling is classifier-free guidance at the best bin:

    p(. | none) (p(. | y) / p(. | none))^(1 + gamma), normalised,   gamma = `guidance`.

The paper conditions on the value itself, scaled, and asks for the maximum of the data, on Gaussian diffusion from
scratch; here the condition is a quantile bin of the value (`num_bins`, unlike the bins of equal width above) and
training starts from the prior's weights. The reward model is not used.

Known limits: those of classifier-free guidance; a heavy upper tail makes temp large and the weights nearly equal.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Generator

from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _conditions
from plait.samplers._conditions import ConditionsConfig, State
from plait.samplers.base import Samples

needs_reward = False
needs_gradient = False
HEAVIEST = 5.0


class Config(ConditionsConfig):
    """Settings of DDOM."""

    guidance: float = Field(2.0, ge=0, le=100, description="gamma: 0 samples the conditional model itself")
    dropout: float = Field(0.15, gt=0, lt=1, description="how often an item is learnt without its condition")
    value_bins: int = Field(20, ge=2, le=1000, description="bins of equal width by which items are weighed")
    smoothing: float = Field(1e-3, gt=0, le=1, description="share of the items under which a bin counts less, K")


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
    weigh = partial(value_weights, num_bins=config.value_bins, smoothing=config.smoothing)
    return _conditions.prepare("ddom", config, prior, dataset, weigh, generator, progress)


def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Independent designs guided to the best bin; log-weights are 0."""
    return _conditions.sample(state, n, generator, progress)


def value_weights(values: NDArray[np.float64], num_bins: int, smoothing: float) -> NDArray[np.float64]:
    """Weights of items (n,) from their values (n,), between 0 and 5; mean 1 where none is clipped.

    Where a tenth of the values share the maximum, the temperature is a thousandth of their range instead of 0.
    """
    lowest, highest = values.min(), values.max()
    edges = np.linspace(lowest, highest, num_bins + 1)
    bins = np.searchsorted(edges[1:-1], values, side="right")
    share = np.bincount(bins, minlength=num_bins) / len(values)
    temperature = max(highest - np.quantile(values, 0.9), 1e-3 * (highest - lowest))
    mass = np.exp((edges[1:] - highest) / temperature) * share / (share + smoothing)
    mass = mass / mass.sum()
    return np.asarray(np.minimum(mass[bins] / share[bins], HEAVIEST))
