"""Ancestral sampling: the reverse chain of the prior or policy, step by step, nothing else.

Source: Sahoo et al. 2024 (MDLM). On masked diffusion it is exact: the designs follow the law of the model's own T-step
chain. Rows in which no position is filled at a step do not go through the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator

from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.samplers import _chains
from plait.samplers.base import Samples

needs_reward = False
needs_gradient = False


class Config(BaseModel):
    """Settings of ancestral sampling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(1024, ge=1, le=1_000_000, description="chains that run side by side")


@dataclass(frozen=True)
class State:
    """What sample() needs."""

    config: Config
    prior: DiffusionPrior


def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Nothing to compute; objective and data are not used."""
    return State(config, prior)


def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Independent designs; log-weights are 0."""
    before = state.prior.rows_forwarded
    tokens = _chains.run(state.prior, n, state.config.batch_size, generator, progress)
    return Samples(tokens, torch.zeros(n, device=tokens.device), state.prior.rows_forwarded - before)
