"""The particle filter that smc and tds share: populations, effective sample sizes, systematic resampling, evidence.

A particle's weight w is kept towards the prior, so that over the particles, at any step and whatever was resampled,

    E[ mean of w f(state) ] = E_prior[ f(state) ].

A proposal multiplies w by p(next | state) / q(next | state). Resampling chooses particle i with a probability a_i in
proportion to w_i exp(v_i / temperature), v the twist, and divides its weight by n a_i: the twist decides which go on
and cancels from the weights, so any twist leaves them right, and what it was before the first step does not matter.
Only at the end is the weight multiplied by exp(reward / temperature). Everything is in logarithms and float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.errors import RunFailedError
from plait.design.records import Progress
from plait.priors.base import DiffusionPrior, Transition
from plait.rewards.conservatism import default_kl_weight
from plait.samplers.base import Samples


class ParticleConfig(BaseModel):
    """Settings of all particle filters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float | None = Field(
        None,
        gt=0,
        le=100,
        description="of the target prior * exp(reward / temperature), in assay standard deviations per nat; default .2 "
        "up to 16 positions, less for longer ones",
    )
    population_size: int | None = Field(
        16,
        ge=1,
        le=1_000_000,
        description="particles that are resampled among themselves, at most: small for diverse designs, large for "
        "sharp estimates; null: all of a call",
    )
    ess_threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a population is resampled when its effective sample size falls under this share of it; 0: never",
    )
    is_resampled: bool = Field(
        True,
        description="at the end each population is drawn from in proportion to its weights, with repeats, so that its "
        "designs count alike; if not, every particle is returned once, with its weight",
    )

    def temperature_for(self, prior: DiffusionPrior) -> float:
        """In assay standard deviations per nat."""
        return default_kl_weight(prior.space.num_free) if self.temperature is None else self.temperature


class Seen(Protocol):
    """What the twist says of n particles."""

    @property
    def values(self) -> Tensor:
        """(n,) float64, assay standard deviations."""
        ...

    def take(self: S, index: Tensor) -> S:
        """Of the particles at index (k,) int64."""
        ...


S = TypeVar("S", bound=Seen)
Look = Callable[[Transition, S | None], S]
"""The twist at the current states; what was seen one step before saves looking again at what did not change."""
Propose = Callable[[Transition, S], tuple[Tensor, Tensor]]
"""Next states (n, ...) drawn from a proposal q, and log p(next | state) - log q(next | state), (n,) nats."""


@torch.no_grad()
def run(
    prior: DiffusionPrior,
    n: int,
    config: ParticleConfig,
    look: Look[S],
    propose: Propose[S],
    generator: Generator,
    progress: Progress,
) -> tuple[Transition, Tensor, S]:
    """Particles, n > 0 of them, through all steps.

    Returns:
        The finished transition; log-weights towards the prior, (n,) float64; what was seen one step before the end.
    """
    members = populations(n, config.population_size or n)
    transition = prior.transition(prior.init_state(n), 0)
    temperature, seen = config.temperature_for(prior), look(transition, None)
    log_weights = torch.zeros(n, dtype=torch.float64, device=transition.state.device)
    members = members.to(log_weights.device)
    for step in range(prior.num_steps):
        progress("sampling", step, prior.num_steps, "")
        if step > 0:
            seen = look(transition, seen)
            twist = seen.values / temperature
            index, log_weights = resample(log_weights, twist, members, config.ess_threshold, generator)
            if index is not None:
                transition, seen = transition.take(index), seen.take(index)
        following, log_ratio = propose(transition, seen)
        transition = transition.follow(following)
        log_weights = log_weights + log_ratio
    return transition, log_weights, seen


def populations(n: int, size: int) -> Tensor:
    """Particles in the fewest rows of at most `size`, lengths that differ by 1 at most: (rows, longest) bool."""
    rows = math.ceil(n / size)
    lengths = n // rows + (torch.arange(rows) < n % rows)
    return torch.arange(math.ceil(n / rows)) < lengths[:, None]


def resample(
    log_weights: Tensor, twist: Tensor, members: Tensor, threshold: float, generator: Generator
) -> tuple[Tensor | None, Tensor]:
    """Resample the populations whose effective sample size is too small.

    A twist of -inf counts as the lowest finite one: what looks hopeless from here may still end well, and dropping it
    would bias the evidence.

    Args:
        log_weights: (n,) float64 towards the prior.
        twist: (n,) float64, nats.
        members: From populations().
        threshold: Share of a population.
        generator: One draw per population.

    Returns:
        Which particles go on, (n,) int64, or None where all do; their log-weights (n,).
    """
    is_finite = twist.isfinite()
    lowest = twist[is_finite].min() if bool(is_finite.any()) else torch.zeros_like(twist[0])
    twist = torch.where(is_finite, twist, lowest)
    each = torch.full(members.shape, -torch.inf, dtype=torch.float64, device=members.device)
    each[members] = log_weights + twist
    lengths, share = members.sum(1), each.softmax(1)
    is_poor = 1 / share.square().sum(1) < threshold * lengths
    if not bool(is_poor.any()):
        return None, log_weights
    offsets = torch.rand(len(lengths), generator=generator, dtype=torch.float64, device=members.device)
    counts = torch.where(is_poor[:, None], systematic(share, lengths, offsets), members.long())[members]
    log_mean = each.logsumexp(1) - lengths.double().log()
    population = members.nonzero()[:, 0]
    log_weights = torch.where(is_poor[population], log_mean[population] - twist, log_weights)
    index = torch.arange(len(twist), device=twist.device).repeat_interleave(counts)
    return index, log_weights[index]


def systematic(share: Tensor, lengths: Tensor, offsets: Tensor) -> Tensor:
    """How often each particle is drawn: floor or ceil of length * share, length * share on average.

    Args:
        share: (rows, k) float64, each row sums to 1.
        lengths: (rows,) int64 draws per row.
        offsets: (rows,) float64, uniform in [0, 1): draw j of a row lies at (j + offset) / length.

    Returns:
        (rows, k) int64; row sums are `lengths`.
    """
    edges = share.cumsum(1)
    drawn = (lengths[:, None] * (edges / edges[:, -1:]) - offsets[:, None]).ceil()
    return drawn.diff(dim=1, prepend=torch.zeros_like(drawn[:, :1])).long()


def finish(
    designs: Tensor, log_weights: Tensor, worth: Tensor, config: ParticleConfig, num_forwards: int, generator: Generator
) -> Samples:
    """The particles in random order with what they weigh towards the target.

    Args:
        designs: (n, ...), n > 0.
        log_weights: (n,) float64 towards the prior.
        worth: (n,) reward / temperature of the designs, nats.
        config: Whether each population is drawn from once more; its members then weigh the same.
        num_forwards: Rows that went through the prior's network.
        generator: Of the order and the draws.

    Returns:
        With weights that average 1; all -inf where no design has a reward above -inf.
    """
    total, n = log_weights + worth, len(designs)
    log_evidence = total.logsumexp(0) - math.log(n)
    order = torch.randperm(n, generator=generator, device=designs.device)
    if log_evidence == -torch.inf:
        return Samples(designs[order], total.float(), num_forwards, -math.inf)
    relative = total - log_evidence
    if config.is_resampled:
        members = populations(n, config.population_size or n).to(designs.device)
        index, relative = resample(relative, torch.zeros_like(relative), members, math.inf, generator)
        designs = designs if index is None else designs[index]
    return Samples(designs[order], relative[order].float(), num_forwards, float(log_evidence))


def nothing(prior: DiffusionPrior) -> Samples:
    """No designs."""
    designs = prior.decode(prior.init_state(0))
    return Samples(designs, torch.zeros(0, device=designs.device))


def checked(values: Tensor) -> Tensor:
    """Values (n,) as float64; -inf is allowed (never a design), what no weight can be made of is not.

    Raises:
        RunFailedError: A value is NaN or +inf.
    """
    num_bad = int((values.isnan() | values.isposinf()).sum())
    if num_bad:
        raise RunFailedError(
            f"the reward is NaN or +inf for {num_bad} of {len(values)} designs",
            hint="give -inf to designs that must never be drawn, a number to all others",
        )
    return values.double()
