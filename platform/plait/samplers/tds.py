"""Twisted diffusion sampling: particles propose along the gradient of the reward, and weights correct what that bends.

Source: Wu et al. 2023, "Practical and Asymptotically Exact Conditional Sampling in Diffusion Models" (TDS), with the
twisted proposal in its discrete form:

    q(x_s | x_t): p(x_s | x_t) with letters re-weighted by exp( scale / temperature * (g_letter - g_mask) ),
    g = gradient of v at relax(x_t),   v(x_t) = r(letter probabilities of the finished design, given x_t),
    each step multiplies the weight by exp( (v(x_s) - v(x_t)) / temperature ) p(x_s | x_t) / q(x_s | x_t),

with exact probabilities p and q, and at the end v = r of the design itself. The target, prior(x) exp(r(x) /
temperature) / Z, populations, resampling, weights, evidence and defaults are those of sequential Monte Carlo.

Owes: unbiased evidence for every n, and the target as n grows (total variation falls like 1 / sqrt(n)), whatever the
gradient: a wrong scale or a misleading reward gradient costs particles, not correctness.

Known limits: the reward must be differentiable and is read at letter probabilities between designs, where no
measurement ever was; each new state costs two forward passes and one backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Generator, Tensor

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior, Transition
from plait.rewards.conservatism import Objective, require_differentiable, require_yardstick
from plait.samplers import _smc
from plait.samplers._gradients import Slopes, slopes
from plait.samplers._values import score
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = True


class Config(_smc.ParticleConfig):
    """Settings of twisted diffusion sampling."""

    scale: float = Field(
        1.0, ge=-100, le=100, description="strength of the proposal's gradient; 1: as the twist itself, 0: plain smc"
    )


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
        raise ConfigError("tds follows the gradient of a reward, and none is given", hint="fit a reward model first")
    require_differentiable(objective, "tds")
    require_yardstick(objective)
    return State(config, prior, objective)


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Designs of n particles, in random order.

    log_weights average 1 after exp; after the final draw they are one number per population (0 where there is one). All
    are -inf, as is log_evidence, where no design has a reward above -inf.

    Raises:
        RunFailedError: A reward is NaN or +inf, or a gradient is not finite.
    """
    config, prior, objective = state.config, state.prior, state.objective
    if n == 0:
        return _smc.nothing(prior)
    before, temperature = prior.rows_forwarded, config.temperature_for(prior)

    def look(transition: Transition, seen: Slopes | None) -> Slopes:
        found = slopes(prior, objective, transition.state, transition.step, seen)
        _smc.checked(found.values)
        return found

    def propose(transition: Transition, seen: Slopes) -> tuple[Tensor, Tensor]:
        proposal = transition.guided(config.scale / temperature * seen.gradients)
        following = proposal.sample(generator)
        return following, transition.log_prob(following).double() - proposal.log_prob(following).double()

    transition, log_weights, _ = _smc.run(prior, n, config, look, propose, generator, progress)
    designs = transition.complete()
    worth = _smc.checked(score(objective, designs)) / temperature
    return _smc.finish(designs, log_weights, worth, config, prior.rows_forwarded - before, generator)
