"""Best-of-N: for each design draw N from the prior and keep the one with the highest conservative reward.

Each kept design follows the law of the best of N independent draws: an item that the prior draws with probability p is
kept with probability F^N - (F - p)^N, F the probability of drawing it or something worse (no ties). The reward is
called once for all draws and need not be differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _chains
from plait.samplers._smc import checked
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False


class Config(BaseModel):
    """Settings of best-of-N."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_candidates: int = Field(16, ge=1, le=100_000, description="draws per design, N")
    batch_size: int = Field(1024, ge=1, le=1_000_000, description="chains that run side by side")


@dataclass(frozen=True)
class State:
    """What sample() needs."""

    config: Config
    prior: DiffusionPrior
    objective: Objective


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
        ConfigError: No objective.
    """
    if objective is None:
        raise ConfigError("best_of_n chooses by a reward, and none is given", hint="fit a reward model first")
    return State(config, prior, objective)


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """The best of N draws, n times over; log-weights are 0.

    Raises:
        RunFailedError: A reward is NaN or +inf.
    """
    config, prior = state.config, state.prior
    before = prior.rows_forwarded
    tokens = _chains.run(prior, n * config.num_candidates, config.batch_size, generator, progress)
    if n > 0:
        values = checked(state.objective(tokens).conservative).view(n, config.num_candidates)
        tokens = tokens.view(n, config.num_candidates, -1)[torch.arange(n, device=tokens.device), values.argmax(1)]
    return Samples(tokens, torch.zeros(n, device=tokens.device), prior.rows_forwarded - before)
