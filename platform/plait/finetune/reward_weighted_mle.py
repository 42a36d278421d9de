"""Reward-weighted maximum likelihood: refit the denoiser to designs weighted by their reward.

Source: Uehara et al. 2024, "Understanding Reinforcement Learning-Based Fine-Tuning of Diffusion Models: A Tutorial and
Review", section on reward-weighted MLE (Peters and Schaal 2007; Zhang and Xu 2023). Maximises

    sum over the pool of w(x_0) * ELBO_policy(x_0),   w in proportion to p_prior(path) / p_drawer(path) exp(r(x_0) / T),

ELBO = the prior's denoising log-likelihood (DiffusionPrior.denoising_log_likelihood), r = the conservative reward in
assay standard deviations, T = `kl_weight`. The weighted pool stands for the target law prior(x) exp(r(x) / T) / Z, and
the maximum of the ELBO over it is the denoiser of that law. Where the pool comes from (`source`):

* prior: `pool_size` draws of the prior, once; the paths' ratio is 1. Only designs that the prior happens to draw can be
  learned, so this suits weak tilts;
* policy: the prior's draws at first, then each rollout of the present policy takes the place of the oldest; the ratio
  of the whole path by which a design was drawn corrects for who drew it, and w becomes even as the policy nears the
  target.

Weights are normalised over the whole pool, not over a minibatch: a self-normalised mean over few items is biased
towards their plain mean. Where few designs would carry all the weight, the log-weights are multiplied by the largest
power <= 1 that leaves `min_effective` of the pool effective (Kish); the power reaches 1 as the drawers near the target.
Items are then drawn by weight, so that each gradient is that of plain pre-training on them.

What it owes: the target law, when the policy is tabular, one position is filled per step, the pool is large and the
power is 1; the prior's letters may depend on the order of filling. Known limits: with the power below 1 it aims between
the drawer and the target; where a step fills several positions the chain's law is not what the ELBO bounds. Offline
data take no part: nobody knows with which probability they were drawn. Workers divide the pool, and each normalises
over its own part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.records import Dataset
from plait.finetune import _rollouts
from plait.finetune._rollouts import Rollout
from plait.finetune.base import Info
from plait.priors.base import AverageGradients, DiffusionPrior, keep_gradients, pieces
from plait.rewards.conservatism import Objective, ObjectiveValue, default_kl_weight, require_yardstick

needs_gradient = False
divided = ("batch_size", "pool_size", "fit_size")


class Config(BaseModel):
    """Settings of reward-weighted maximum likelihood."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_updates: int = Field(100, ge=1, le=100_000, description="rollouts, each followed by all its fits")
    batch_size: int = Field(64, ge=1, le=65_536, description="designs per rollout, of all workers together")
    source: Literal["policy", "prior"] = Field("policy", description="who draws the designs that are learned from")
    pool_size: int = Field(1024, ge=2, le=10_000_000, description="designs over which weights are normalised")
    min_effective: float = Field(
        0.1, ge=0, lt=1, description="share of the pool that must stay effective; 0: the weights as they are"
    )
    num_fits: int = Field(8, ge=1, le=10_000, description="optimiser updates per rollout")
    fit_size: int = Field(128, ge=1, le=65_536, description="designs drawn from the pool per optimiser update")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's step size")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    kl_weight: float | None = Field(
        None,
        gt=0,
        le=100,
        description="temperature of the weights, assay standard deviations per nat; default .2 up to 16 positions, "
        "less for longer ones",
    )


@dataclass
class WeightedMleState:
    """Reward-weighted maximum likelihood between two rollouts.

    Attributes:
        policy: What is tuned.
        prior: The frozen reference.
        objective: What is maximised.
        kl_weight: Assay standard deviations per nat.
        designs: The pool, (N, L) int64, oldest first.
        log_weights: Their log-weights towards the target, (N,) nats, not normalised.
        step: Rollouts done.
    """

    config: Config
    policy: DiffusionPrior
    prior: DiffusionPrior
    objective: Objective
    kl_weight: float
    optimiser: torch.optim.Optimizer
    generator: Generator
    designs: Tensor
    log_weights: Tensor
    step: int = 0

    @property
    def is_finished(self) -> bool:
        """All rollouts are done."""
        return self.step >= self.config.num_updates

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers, text."""
        return _rollouts.common_state(self) | {"designs": self.designs, "log_weights": self.log_weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from state_dict()."""
        _rollouts.load_common_state(self, state)
        self.designs = state["designs"].to(self.designs.device)
        self.log_weights = state["log_weights"].to(self.log_weights.device)


def init(
    config: Config, prior: DiffusionPrior, objective: Objective, dataset: Dataset | None, generator: Generator
) -> WeightedMleState:
    """The state before the first rollout: draws the pool from the prior and asks for its rewards.

    Raises:
        ConfigError: The yardstick of kl_weight is not positive.
    """
    require_yardstick(objective)
    weight = default_kl_weight(prior.space.num_free) if config.kl_weight is None else config.kl_weight
    policy, reference = prior.clone(is_trainable=True), prior.clone(is_trainable=False)
    designs = reference.decode(reference.draw(config.pool_size, generator))
    value = _rollouts.judge(objective, designs).conservative / objective.assay_std
    return WeightedMleState(
        config=config,
        policy=policy,
        prior=reference,
        objective=objective,
        kl_weight=weight,
        optimiser=torch.optim.Adam(policy.network.parameters(), lr=config.learning_rate),
        generator=generator,
        designs=designs,
        log_weights=value / weight,
    )


def step(state: WeightedMleState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One rollout and its fits, in place. Info.loss is minus the ELBO of the drawn designs, mean over the fits.

    Raises:
        RunFailedError: A weight or the gradient is not finite.
    """
    config = state.config
    rollout = _rollouts.roll_out(state.policy, state.prior, config.batch_size, state.generator)
    judged = _rollouts.judge(state.objective, rollout.designs)
    if config.source == "policy":
        _renew(state, rollout, judged)
    _rollouts.require_finite(state.log_weights, state.step)
    weights = effective_weights(state.log_weights, config.min_effective)
    losses, norms = [], []
    for _ in range(config.num_fits):
        rows = torch.multinomial(weights, config.fit_size, replacement=True, generator=state.generator)
        state.optimiser.zero_grad()
        losses.append(sum(_accumulate(state, part, len(part) / len(rows)) for part in pieces(rows, num_pieces)))
        norms.append(_rollouts.update(state.optimiser, config.clip, average_gradients, state.step))
    state.step += 1
    return _rollouts.inform(rollout, judged, sum(losses) / len(losses), sum(norms) / len(norms))


def _accumulate(state: WeightedMleState, rows: Tensor, share: float) -> float:
    """Add a share of the gradient of minus the ELBO of the pool's designs `rows` (k,); that share of it, in nats."""
    loss = -state.policy.denoising_log_likelihood(state.designs[rows], state.generator).mean() * share
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def effective_weights(log_weights: Tensor, min_effective: float) -> Tensor:
    """Normalised weights of a pool, (N,), by the largest power <= 1 that keeps the effective share.

    Args:
        log_weights: (N,) nats.
        min_effective: Least effective sample size (sum w)^2 / sum w^2, as a share of N; 0 asks for nothing.
    """
    low, high = 0.0, 1.0
    if _effective_share(log_weights) < min_effective:
        for _ in range(30):
            power = (low + high) / 2
            is_enough = _effective_share(power * log_weights) >= min_effective
            low, high = (power, high) if is_enough else (low, power)
        return (low * log_weights).softmax(0)
    return log_weights.softmax(0)


def _effective_share(log_weights: Tensor) -> float:
    return 1.0 / (len(log_weights) * float(log_weights.softmax(0).square().sum()))


def _renew(state: WeightedMleState, rollout: Rollout, judged: ObjectiveValue) -> None:
    """The rollout's designs take the place of the oldest, weighted by prior(path) / policy(path) * exp(reward / T)."""
    value = judged.conservative / state.objective.assay_std
    log_weights = value / state.kl_weight - rollout.log_ratio.sum(0)
    state.designs = torch.cat([state.designs, rollout.designs])[-state.config.pool_size :]
    state.log_weights = torch.cat([state.log_weights, log_weights])[-state.config.pool_size :]
