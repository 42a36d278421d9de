"""Classifier guidance: every step of the prior is bent along the gradient of the reward, and nothing corrects it.

Source: Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis"; in discrete form Nisonoff et al.
2024, "Unlocking Guidance for Discrete State-Space Diffusion and Flow Models" (the first-order approximation), here with
the reward of the predicted design in place of a classifier that was trained on noisy states.

    q(j | x_t) in proportion to p(j | x_t) exp( scale / temperature * (dv / d onehot_j - dv / d onehot_mask) ),
    v(x_t) = r(letter probabilities of the finished design, given x_t),   j a letter at a position that is filled,

r the conservative reward in assay standard deviations.

Owes no target: with scale 1 the designs lean towards prior(x) exp(r(x) / temperature), but the step looks only at first
order and at one position at a time. With scale 0 it is the prior's own chain. The reward must be differentiable. tds
makes the same proposals and corrects them by weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective, default_kl_weight, require_differentiable, require_yardstick
from plait.samplers._gradients import slopes
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = True


class Config(BaseModel):
    """Settings of classifier guidance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float | None = Field(
        None,
        gt=0,
        le=100,
        description="of the law that is leaned towards, in assay standard deviations per nat; default .2 up to 16 "
        "positions, less for longer ones",
    )
    scale: float = Field(1.0, ge=-100, le=100, description="strength of the gradient; 0: the prior itself")
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
        ConfigError: No objective, one that is not differentiable, or one whose yardstick is not positive.
    """
    if objective is None:
        raise ConfigError(
            "classifier_guidance follows the gradient of a reward, and none is given", hint="fit a reward model first"
        )
    require_differentiable(objective, "classifier_guidance")
    require_yardstick(objective)
    return State(config, prior, objective)


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Independent designs; log-weights are 0.

    Raises:
        RunFailedError: A gradient is not finite.
    """
    config, prior = state.config, state.prior
    before = prior.rows_forwarded
    strength = config.scale / (config.temperature or default_kl_weight(prior.space.num_free))
    designs = [prior.decode(prior.init_state(0))]
    for start in range(0, n, config.batch_size):
        transition = prior.transition(prior.init_state(min(config.batch_size, n - start)), 0)
        seen = None
        for step in range(prior.num_steps):
            progress("sampling", start * prior.num_steps + step * len(transition.state), n * prior.num_steps, "")
            seen = slopes(prior, state.objective, transition.state, step, seen)
            guided = transition.guided(strength * seen.gradients)
            transition = guided.follow(guided.sample(generator))
        designs.append(transition.complete())
    tokens = torch.cat(designs)
    return Samples(tokens, torch.zeros(n, device=tokens.device), prior.rows_forwarded - before)
