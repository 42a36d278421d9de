"""Exhaustive scoring: the best designs of the whole space, the honest baseline wherever the space is small enough.

Every feasible item is scored once by the conservative reward; the prior is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress, no_progress
from plait.design.space import DesignSpace
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers._smc import checked
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False


class Config(BaseModel):
    """Settings of exhaustive scoring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_items: int = Field(2_000_000, ge=1, le=100_000_000, description="largest space that is scored, in items")
    chunk_size: int = Field(8192, ge=1, le=1_000_000, description="items per call of the reward")


@dataclass(frozen=True)
class State:
    """What sample() needs."""

    config: Config
    space: DesignSpace
    objective: Objective


def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Nothing to compute; of the prior only the space is used.

    Raises:
        ConfigError: No objective, or a space with more than `max_items` items.
    """
    if objective is None:
        raise ConfigError("exhaustive chooses by a reward, and none is given", hint="fit a reward model first")
    if prior.space.size > config.max_items:
        raise ConfigError(
            f"the space has {prior.space.size:,} items, more than the {config.max_items:,} that can all be scored",
            hint="use ancestral or best_of_n, or fix more positions of the template",
        )
    return State(config, prior.space, objective)


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """The n best feasible items, best first; fewer where the space holds fewer. Log-weights are 0.

    Raises:
        RunFailedError: A reward is NaN or +inf.
    """
    best = torch.zeros((0, state.space.length), dtype=torch.int64)
    best_values = torch.zeros(0, dtype=torch.float64)
    for number, chunk in enumerate(state.space.enumerate(state.config.chunk_size)):
        progress("scoring the space", number * state.config.chunk_size, state.space.size, "")
        tokens = torch.from_numpy(chunk)
        values = torch.cat([best_values, checked(state.objective(tokens).conservative).cpu()])
        best_values, order = values.sort(descending=True, stable=True)
        best_values, best = best_values[:n], torch.cat([best, tokens])[order[:n]]
    return Samples(best, torch.zeros(len(best)))
