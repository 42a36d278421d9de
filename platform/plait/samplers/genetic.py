"""A genetic algorithm: the best measured items crossed and mutated, under the reward or without one.

Source: adaptive greedy search in a model's landscape, Sinai et al., "AdaLead: A simple and robust adaptive greedy
search algorithm for sequence design" (2020): each round starts from the best measured items and recombines and mutates
them against the model; the genetic algorithm as the baseline to beat on long designs, Stanton et al., "Closed-Form Test
Functions for Biophysical Sequence Design Benchmarking" (2024). Objective, one per island i:

    max over x of conservative(x) + spread (member_i(x) - mean(x)),    member_i drawn by its weight,

searched for `generations` generations. With `generations` 0 it is the archive algorithm: one generation of children,
taken as they come, and the reward is not asked.

Symbols: conservative, member, mean -> the objective's (where it shows no members, k_i std with k_i ~ N(0, 1)). What it
owes: designs in the space, constraints included (measured items that break them breed, but are never returned), of
pieces that the data show. Limits: the prior's law is not aimed at,
of the prior only the space is used (the leash is `observed` and the measured ancestry); a population that has converged
proposes near relatives (see neutral_drift).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Generator

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _evolution
from plait.samplers._evolution import EvolutionConfig, Measured
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False


class Config(EvolutionConfig):
    """Settings of the genetic algorithm."""

    generations: int = Field(30, ge=0, le=100_000, description="of the search within one call; 0: the archive's own")


@dataclass(frozen=True)
class State:
    """What sample() needs; objective is None where no generation asks for it."""

    config: Config
    measured: Measured
    objective: Objective | None


def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Rank the measured items and note the pieces they show.

    Raises:
        ConfigError: No measured items or no free position; or no objective, while generations are asked for.
    """
    if objective is None and config.generations > 0:
        raise ConfigError(
            "genetic searches under a reward, and none is given",
            hint="fit a reward model first, or set generations: 0 for the algorithm that needs none",
        )
    return State(config, Measured.of(dataset, config, "genetic"), objective)


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Draw n designs, new ones as long as the islands find any; log-weights are 0.

    Raises:
        RunFailedError: A reward is NaN or +inf, or nothing within the constraints was found or measured.
    """
    config, measured = state.config, state.measured
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
    if state.objective is None or config.generations == 0:
        tokens = _evolution.breed_blindly(measured, config, n, rng, progress)
    else:
        tokens = _evolution.breed(state.objective, measured, config, n, rng, progress).tokens
    return Samples(torch.from_numpy(tokens), torch.zeros(n))
