"""Sequential Monte Carlo: particles walk the prior's chain, and those that look promising are resampled on the way.

Source: Del Moral, Doucet and Jasra 2006, "Sequential Monte Carlo Samplers"; for diffusion Dou and Song 2024 (filtering
posterior sampling), as a baseline in Li et al. 2024 (SVDD). Target and weights:

    target(x) = prior(x) exp(r(x) / temperature) / Z,   Z = E_prior[ exp(r / temperature) ],
    each step multiplies a particle's weight by exp( (v(x_s) - v(x_t)) / temperature ),  x_s ~ prior's p(. | x_t),

prior(x) the law of the actual T-step chain, r the conservative reward in assay standard deviations, v(x_t) = r of the
likeliest completion of x_t, at the end r itself. v before the first step cancels. A population is resampled
(systematically) only when its effective sample size 1 / sum of squared shares falls under `ess_threshold` of it.

Owes: for every n and any v, `exp(log_evidence)` is an unbiased estimate of Z, and so are, times `exp(log_evidence)`,
weighted means of E_prior[f exp(r / temperature)]; weighted designs meet the target as n grows, total variation falling
like 1 / sqrt(n). Several populations count by their own evidence: one mean over all particles, in linear space.

Defaults are for a batch that goes to the laboratory. Each population is drawn from once more at the end, so its designs
can be taken as they are: only a population's evidence is left in their weights, and whoever ignores it takes from all
populations alike. They are small, because at a low temperature the members of one end as copies of few designs. For
estimates set population_size to null and is_resampled to False.

Known limits: designs of small populations taken without weights lean less towards the target; a v that misjudges states
wastes particles. The reward need not be differentiable; it is called once per step, on the distinct designs that were
not seen one step ago.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior, Transition
from plait.rewards.conservatism import Objective, require_yardstick
from plait.samplers import _smc
from plait.samplers._values import score
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False


class Config(_smc.ParticleConfig):
    """Settings of sequential Monte Carlo."""


@dataclass(frozen=True)
class State:
    """What sample() needs."""

    config: Config
    prior: DiffusionPrior
    objective: Objective


@dataclass(frozen=True)
class _Scored:
    """Completions (n, ...) and what they are worth, (n,) float64."""

    designs: Tensor
    values: Tensor

    def take(self, index: Tensor) -> _Scored:
        return _Scored(self.designs[index], self.values[index])


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
        ConfigError: No objective, or one whose yardstick is not positive.
    """
    if objective is None:
        raise ConfigError("smc weighs particles by a reward, and none is given", hint="fit a reward model first")
    require_yardstick(objective)
    return State(config, prior, objective)


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Designs of n particles, in random order.

    log_weights average 1 after exp; after the final draw they are one number per population (0 where there is one). All
    are -inf, as is log_evidence, where no design has a reward above -inf.

    Raises:
        RunFailedError: A reward is NaN or +inf.
    """
    config, prior = state.config, state.prior
    if n == 0:
        return _smc.nothing(prior)
    before = prior.rows_forwarded

    def look(transition: Transition, seen: _Scored | None) -> _Scored:
        designs = transition.complete()
        if seen is None:
            return _Scored(designs, _smc.checked(score(state.objective, designs)))
        is_new = (designs != seen.designs).flatten(1).any(1)
        values = seen.values.clone()
        values[is_new] = _smc.checked(score(state.objective, designs[is_new]))
        return _Scored(designs, values)

    def propose(transition: Transition, seen: _Scored) -> tuple[Tensor, Tensor]:
        return transition.sample(generator), torch.zeros_like(seen.values)

    transition, log_weights, seen = _smc.run(prior, n, config, look, propose, generator, progress)
    end = look(transition, seen)
    worth = end.values / config.temperature_for(prior)
    num_forwards = prior.rows_forwarded - before
    return _smc.finish(end.designs, log_weights, worth, config, num_forwards, generator)
