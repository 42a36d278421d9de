"""Soft value-based decoding: draw several next states per chain, keep one by what it is worth.

Source: Li et al. 2024, "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based
Decoding" (SVDD); resampling across the batch as in Uehara et al. 2025, "Reward-Guided Controlled Generation for
Inference-Time Alignment in Diffusion Models" (SVDD-R). At each step every chain x_t makes M proposals x_s by the
prior's own transition, and one is drawn

    within each chain:      with probability in proportion to exp(v_s(x_s) / temperature),
    across all n M of them: n by systematic resampling, weights exp((v_s(x_s) - v_t(x_t)) / temperature).

At the last step v is the reward of the finished design. Within chains the target prior * exp(reward / temperature) / Z
is met as M grows if v is the soft value temperature * log E[exp(reward / temperature) | x_s]; across chains it is met
as n grows, whatever v is, because the differences of v along a chain add up to its reward.

Cost: all proposals of a step are judged in one call of the reward, each distinct design once; proposals that are
their parent's own state keep what the network and the reward said of it; a step in which no chain moves costs nothing.
What is forwarded to judge the winner is also its next step's forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.errors import ConfigError
from plait.design.records import Progress
from plait.priors.base import DiffusionPrior, Transition
from plait.rewards.conservatism import Objective, default_kl_weight, require_yardstick
from plait.samplers._smc import checked, systematic
from plait.samplers._values import score
from plait.samplers.base import Samples


class DecodingConfig(BaseModel):
    """Settings that every algorithm of this family shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_proposals: int = Field(10, ge=1, le=10_000, description="next states drawn per chain and step, M")
    temperature: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="assay standard deviations per nat; 0 keeps the best proposal; default .2 up to 16 positions, less "
        "for longer ones",
    )
    batch_size: int = Field(256, ge=1, le=100_000, description="chains that run side by side, each with M proposals")


class Value(Protocol):
    """What states on the way are worth, in assay standard deviations.

    Attributes:
        is_timeless: A state that does not change keeps its value from step to step.
    """

    @property
    def is_timeless(self) -> bool: ...

    def __call__(self, transition: Transition, rows: Tensor, step: int, generator: Generator) -> Tensor:
        """Values (k,) float32 of the chains at rows (k,) int64 of a transition, before `step`."""
        ...


@dataclass(frozen=True)
class Completion:
    """The conservative reward of the finished design that the prior sees in a state (SVDD-PM).

    Attributes:
        objective: The reward.
        is_drawn: Judge a drawn completion in place of the likeliest one.
    """

    objective: Objective
    is_drawn: bool = False

    @property
    def is_timeless(self) -> bool:
        """The likeliest completion of a state does not depend on the step; a drawn one is drawn again."""
        return not self.is_drawn

    def __call__(self, transition: Transition, rows: Tensor, step: int, generator: Generator) -> Tensor:
        """Values (k,) of the chains at rows (k,): one call of the reward, and none for no rows."""
        designs = transition.complete(generator if self.is_drawn else None)
        return score(self.objective, designs[rows])


@dataclass(frozen=True)
class State:
    """What sample() needs.

    Attributes:
        temperature: Assay standard deviations per nat.
        value: Of states before the last step; after it the objective itself judges.
        is_across: Proposals compete across chains.
    """

    config: DecodingConfig
    prior: DiffusionPrior
    objective: Objective
    temperature: float
    value: Value
    is_across: bool = False


def require(objective: Objective | None, algorithm: str) -> Objective:
    """The objective, if it can be decoded by.

    Raises:
        ConfigError: There is none, or its yardstick is not positive.
    """
    if objective is None:
        raise ConfigError(f"{algorithm} chooses by a reward, and none is given", hint="fit a reward model first")
    require_yardstick(objective)
    return objective


def temperature_of(config: DecodingConfig, prior: DiffusionPrior) -> float:
    """The temperature that is set, or the one that all methods share for designs of this length."""
    return default_kl_weight(prior.space.num_free) if config.temperature is None else config.temperature


@torch.no_grad()
def run(state: State, n: int, generator: Generator, progress: Progress) -> Samples:
    """Decode n designs in batches of about equal size; log-weights are 0.

    Across chains the evidence is estimated without bias; within them not at all.

    Raises:
        RunFailedError: A reward is NaN or +inf.
    """
    prior, batch_size = state.prior, state.config.batch_size
    before = prior.rows_forwarded
    tokens, log_sums = [prior.decode(prior.init_state(0))], []
    num_batches = math.ceil(n / batch_size)
    for number in range(num_batches):
        start, end = n * number // num_batches, n * (number + 1) // num_batches
        size = end - start
        designs, log_evidence = _decode(state, size, generator, partial(_say, progress, state, start, size, n))
        tokens.append(designs)
        log_sums.append(log_evidence + math.log(size / n))
    evidence = float(torch.tensor(log_sums, dtype=torch.float64).logsumexp(0)) if state.is_across and n > 0 else None
    drawn = torch.cat(tokens)
    if state.is_across:  # siblings stand side by side
        drawn = drawn[torch.randperm(n, generator=generator, device=drawn.device)]
    return Samples(drawn, torch.zeros(n, device=drawn.device), prior.rows_forwarded - before, evidence)


def _say(progress: Progress, state: State, start: int, size: int, n: int, step: int) -> None:
    num_steps = state.prior.num_steps
    progress("decoding", start + size * step // num_steps, n, f"step {step + 1} of {num_steps}")


def _decode(state: State, size: int, generator: Generator, say: Callable[[int], None]) -> tuple[Tensor, float]:
    """Finished designs of one batch, and its estimate of the log-evidence (0 where chains do not compete)."""
    prior, num, log_evidence = state.prior, state.config.num_proposals, 0.0
    transition = prior.transition(prior.init_state(size), 0)
    every = torch.arange(size, device=transition.state.device)
    worth = _initial(state, transition, every, generator)
    if state.is_across:
        log_evidence = float(worth[0]) / state.temperature
    for step in range(prior.num_steps):
        say(step)
        proposals = transition.sample(generator, num).reshape(size, num, *transition.state.shape[1:])
        is_moved = (proposals != transition.state[:, None]).flatten(2).any(2).flatten()
        if step + 1 < prior.num_steps and not bool(is_moved.any()):
            transition = transition.follow(transition.state)
            continue
        ahead = transition.follow(proposals)
        values = _judge(state, ahead, is_moved, worth, step + 1, generator)
        if state.is_across:
            winners, log_mean = _compete(values, worth, state.temperature, generator)
            log_evidence += log_mean
        else:
            winners = every * num + _choose(values, state.temperature, generator)
        transition, worth = ahead.take(winners), values.flatten()[winners]
    return transition.complete(), log_evidence


def _initial(state: State, transition: Transition, every: Tensor, generator: Generator) -> Tensor:
    """Values (n,) before the first step. All chains start from one state: where the value is drawn, its mean."""
    mean = checked(state.value(transition, every, 0, generator)).mean()
    is_usable = mean.isfinite() | (not state.is_across)
    return torch.where(is_usable, mean, 0.0).expand(len(every))


def _judge(state: State, ahead: Transition, is_moved: Tensor, worth: Tensor, step: int, generator: Generator) -> Tensor:
    """Values (n, M) float64 of all proposals `ahead` before `step`, given those of their parents, (n,)."""
    num = state.config.num_proposals
    if step == state.prior.num_steps:
        return checked(score(state.objective, ahead.complete())).view(-1, num)
    is_asked = is_moved if state.value.is_timeless else torch.ones_like(is_moved)
    values = worth.repeat_interleave(num)
    values[is_asked] = checked(state.value(ahead, is_asked.nonzero()[:, 0], step, generator))
    if state.is_across:  # What looks hopeless may still end well: dropping it would bias the law and the evidence.
        lowest = torch.where(values.isfinite(), values, torch.inf).min()
        values = torch.where(values.isfinite(), values, torch.where(lowest.isfinite(), lowest, 0.0))
    return values.view(-1, num)


def _choose(values: Tensor, temperature: float, generator: Generator) -> Tensor:
    """One proposal of each chain in proportion to exp(values (n, M) / temperature), (n,) int64; at 0 the best."""
    if temperature == 0:
        return values.argmax(1)
    gumbel = -torch.empty_like(values).exponential_(generator=generator).log()
    return (values / temperature + gumbel).argmax(1)


def _compete(values: Tensor, worth: Tensor, temperature: float, generator: Generator) -> tuple[Tensor, float]:
    """Which of all proposals go on (n,) int64, given values (n, M) and their parents' (n,); log of the mean weight."""
    log_weights = ((values - worth[:, None]) / temperature).flatten()
    log_mean = float(log_weights.logsumexp(0)) - math.log(len(log_weights))
    share = (log_weights if math.isfinite(log_mean) else torch.zeros_like(log_weights)).softmax(0)
    offset = torch.rand(1, generator=generator, dtype=torch.float64, device=share.device)
    counts = systematic(share[None], torch.full((1,), len(worth), device=share.device), offset)[0]
    return torch.arange(len(share), device=share.device).repeat_interleave(counts), log_mean
