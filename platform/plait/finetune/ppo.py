"""PPO: policy gradients on the denoising chain, for rewards of which only values are known.

Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (clipped ratio); on denoising steps Black et al.
2023, "Training Diffusion Models with Reinforcement Learning" (DDPO), and with a KL to the pre-trained model Fan et al.
2023, "DPOK". Maximises

    J = E_policy[ r(x_T) ] / assay_std - kl_weight * sum over steps t of E_policy[ KL_t(x_t) ],

r = the conservative reward, KL_t(x) the exact KL of the policy's transition from x against the prior's. A move at step
t changes which later states are visited, so the gradient of J has two parts, and both are here:

    grad J = E[ sum_t grad log p(x_t+1 | x_t) * (r / assay_std - kl_weight * sum over u > t of KL_u(x_u)) ]
             - kl_weight * E[ sum_t grad KL_t(x_t) ].

The bracket (reward to go) less its leave-one-out mean over the other chains of the rollout is the advantage; it is NOT
divided by its standard deviation, which would change kl_weight from rollout to rollout. One step() is one rollout by
the present policy and `num_epochs` passes over it; in a pass the chains are cut into `num_minibatches`, and each gives
one optimiser update of the clipped objective min(ratio * advantage, clip(ratio) * advantage), ratio per step = policy
now / policy that drew the chain. One optimiser serves the whole run.

What it owes: with a tabular policy, one position per step and a prior whose letters do not depend on the order of
filling, the optimum is prior * exp(value / kl_weight) / Z exactly. Published code makes one pass per rollout, so that
its ratio is always 1 and nothing is ever clipped. Known limits: where a step fills several positions, or the prior
depends on the order, the optimum is the policy of least path KL and only near that law; the variance grows with the
number of steps. A worker's advantages are taken over its own chains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Generator, Tensor

from plait.design.records import Dataset
from plait.finetune import _rollouts
from plait.finetune._rollouts import Rollout
from plait.finetune.base import Info
from plait.priors.base import AverageGradients, DiffusionPrior, keep_gradients, pieces
from plait.rewards.conservatism import Objective, default_kl_weight, require_yardstick

needs_gradient = False
divided = ("batch_size",)


class Config(BaseModel):
    """Settings of PPO."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_updates: int = Field(100, ge=1, le=100_000, description="rollouts, each followed by all its epochs")
    batch_size: int = Field(128, ge=2, le=65_536, description="designs per rollout, of all workers together")
    num_epochs: int = Field(2, ge=1, le=100, description="passes over a rollout; 1 leaves every ratio at 1")
    num_minibatches: int = Field(1, ge=1, le=1000, description="optimiser updates per pass, over shares of the chains")
    ratio_clip: float = Field(0.2, gt=0, lt=1, description="how far from 1 a step's probability ratio still counts")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's step size")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    kl_weight: float | None = Field(
        None,
        gt=0,
        le=100,
        description="assay standard deviations per nat of path KL; default .2 up to 16 positions, less for longer ones",
    )

    @model_validator(mode="after")
    def _every_minibatch_has_chains(self) -> Config:
        if self.num_minibatches > self.batch_size:
            raise ValueError(f"num_minibatches {self.num_minibatches} is more than batch_size {self.batch_size}")
        return self


@dataclass
class PpoState:
    """PPO between two rollouts.

    Attributes:
        policy: What is tuned.
        prior: The frozen reference.
        objective: What is maximised.
        kl_weight: Assay standard deviations per nat of path KL.
        step: Rollouts done.
    """

    config: Config
    policy: DiffusionPrior
    prior: DiffusionPrior
    objective: Objective
    kl_weight: float
    optimiser: torch.optim.Optimizer
    generator: Generator
    step: int = 0

    @property
    def is_finished(self) -> bool:
        """All rollouts are done."""
        return self.step >= self.config.num_updates

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers, text."""
        return _rollouts.common_state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from state_dict()."""
        _rollouts.load_common_state(self, state)


def init(
    config: Config, prior: DiffusionPrior, objective: Objective, dataset: Dataset | None, generator: Generator
) -> PpoState:
    """The state before the first rollout; the offline data are not used beyond the objective.

    Raises:
        ConfigError: The yardstick of kl_weight is not positive.
    """
    require_yardstick(objective)
    policy = prior.clone(is_trainable=True)
    return PpoState(
        config=config,
        policy=policy,
        prior=prior.clone(is_trainable=False),
        objective=objective,
        kl_weight=default_kl_weight(prior.space.num_free) if config.kl_weight is None else config.kl_weight,
        optimiser=torch.optim.Adam(policy.network.parameters(), lr=config.learning_rate),
        generator=generator,
    )


def step(state: PpoState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One rollout and its epochs, in place. Info.loss is minus J; Info.grad_norm the mean over optimiser updates.

    Raises:
        RunFailedError: The gradient is not finite.
    """
    config = state.config
    rollout = _rollouts.roll_out(state.policy, state.prior, config.batch_size, state.generator)
    judged = _rollouts.judge(state.objective, rollout.designs)
    value = judged.conservative / state.objective.assay_std
    gains = advantages(value, rollout.kl, state.kl_weight)
    norms = []
    for _ in range(config.num_epochs):
        order = torch.randperm(config.batch_size, generator=state.generator, device=value.device)
        for rows in order.tensor_split(config.num_minibatches):
            state.optimiser.zero_grad()
            for piece in pieces(rows, num_pieces):
                _accumulate(state, rollout, gains, piece, len(piece) / len(rows))
            norms.append(_rollouts.update(state.optimiser, config.clip, average_gradients, state.step))
    state.step += 1
    loss = state.kl_weight * rollout.kl.sum(0).mean() - value.mean()
    return _rollouts.inform(rollout, judged, float(loss), sum(norms) / len(norms))


def advantages(value: Tensor, kl: Tensor, kl_weight: float) -> Tensor:
    """Reward to go of each step less its mean over the other chains, (T, n).

    Args:
        value: (n,) worth of the finished designs, assay standard deviations.
        kl: (T, n) KL of each transition, nats.
        kl_weight: Assay standard deviations per nat.
    """
    later = kl.sum(0) - kl.cumsum(0)
    to_go = value - kl_weight * later
    return (to_go - to_go.mean(1, keepdim=True)) * len(value) / (len(value) - 1)


def _accumulate(state: PpoState, rollout: Rollout, gains: Tensor, rows: Tensor, share: float) -> None:
    """Add a share of the gradient of the clipped objective over the chains `rows` (k,), one step's graph at a time."""
    low, high = 1 - state.config.ratio_clip, 1 + state.config.ratio_clip
    for number, reference in enumerate(rollout.references):
        mine = state.policy.transition(rollout.states[number, rows], number)
        ratio = (mine.log_prob(rollout.states[number + 1, rows]) - rollout.log_prob[number, rows]).exp()
        gain = gains[number, rows]
        kept = torch.minimum(ratio * gain, ratio.clamp(low, high) * gain)
        loss = (state.kl_weight * mine.kl(reference.take(rows)) - kept).mean() * share
        loss.backward()  # type: ignore[no-untyped-call]
