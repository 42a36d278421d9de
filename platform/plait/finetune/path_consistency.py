"""Path consistency: a policy and a value of states that agree along every path, whoever drew it.

Source: Uehara et al. 2024, "Understanding Reinforcement Learning-Based Fine-Tuning of Diffusion Models: A Tutorial and
Review", section on path consistency learning; Nachum et al. 2017, "Bridging the Gap Between Value and Policy Based
Reinforcement Learning" (PCL); sums over sub-trajectories as in Madan et al. 2023 (SubTB, GFlowNets). With T =
`kl_weight`, v the value of a state in assay standard deviations (v of a finished design = its conservative reward), the
level of a path at step t is

    f_t = v(x_t) / T - sum over u < t of log( p_policy(x_u+1 | x_u) / p_prior(x_u+1 | x_u) ),

and the loss is the mean over paths of sum over i < j of w_ij (f_i - f_j)^2, w_ij proportional to
`subtrajectory_decay`^(j - i): 0 leaves the steps (v(x)/T + log p_policy = v(y)/T + log p_prior), 1 weighs all
sub-trajectories alike. All levels of all paths are equal exactly where the policy is prior * exp(v) step by step, that
is at the target law prior(x) exp(reward / T) / Z, with v the soft value T log E_prior[exp(reward / T) | x_t].

No expectation over the policy stands in the loss, so any paths will do: of each rollout a share `prior_fraction` is
drawn by the prior and the rest by the policy, and all stay in a replay buffer from which minibatches are taken. What
policy and prior say of which positions to fill is the same and cancels. The value starts as the soft value of the
prior's start, from draws that all workers share; it has its own learning rate.

What it owes: the target, when the policy is tabular, one position is filled per step and the prior's letters do not
depend on the order of filling. Known limits: elsewhere the residual cannot vanish, and the least squares depend on who
drew the paths. Each minibatch goes through the policy twice, so that one step's graph is in memory at a time.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Generator, Tensor, nn

from plait.design.records import Dataset
from plait.finetune import _rollouts
from plait.finetune._rollouts import Rollout
from plait.finetune.base import Info
from plait.priors._state_values import StateValue
from plait.priors.base import AverageGradients, DiffusionPrior, keep_gradients, pieces
from plait.rewards.conservatism import Objective, default_kl_weight, require_yardstick

needs_gradient = False
divided = ("batch_size", "replay_size", "fit_size")

START_DRAWS = 256
"""Draws of the prior from which the value starts."""


class Config(BaseModel):
    """Settings of path consistency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_updates: int = Field(100, ge=1, le=100_000, description="rollouts, each followed by all its fits")
    batch_size: int = Field(32, ge=1, le=65_536, description="designs per rollout, of all workers together")
    prior_fraction: float = Field(0.25, ge=0, lt=1, description="share of a rollout that the prior draws")
    replay_size: int = Field(512, ge=1, le=1_000_000, description="paths kept, the newest")
    num_fits: int = Field(2, ge=1, le=10_000, description="optimiser updates per rollout")
    fit_size: int = Field(64, ge=1, le=65_536, description="paths drawn from the buffer per optimiser update")
    subtrajectory_decay: float = Field(
        0.9, ge=0, le=1, description="weight of a stretch of paths per step of its length; 0: single steps only"
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Adam's step size, policy")
    value_learning_rate: float = Field(5e-3, gt=0, le=1, description="Adam's step size, value")
    value_width: int = Field(64, ge=4, le=2048, description="hidden units of the value network")
    clip: float = Field(1.0, gt=0, description="largest gradient norm, of policy and value each")
    kl_weight: float | None = Field(
        None,
        gt=0,
        le=100,
        description="assay standard deviations per nat of path KL; default .2 up to 16 positions, less for longer ones",
    )

    @model_validator(mode="after")
    def _a_rollout_is_kept(self) -> Config:
        if self.replay_size < self.batch_size:
            raise ValueError(f"replay_size {self.replay_size} holds no whole rollout of batch_size {self.batch_size}")
        return self


@dataclass(frozen=True)
class Replay:
    """Paths that were drawn, oldest first.

    Attributes:
        states: (T+1, N, ...) hard states.
        log_prior: (T, N) log-probability of each step under the prior, nats.
        worth: (N,) conservative reward of the finished designs, assay standard deviations.
    """

    states: Tensor
    log_prior: Tensor
    worth: Tensor

    def add(self, rollouts: list[Rollout], worth: Tensor, size: int) -> Replay:
        """These and new ones against the prior, worth (n,) all together; only the newest `size` are kept."""
        log_prior = [r.log_prob - r.log_ratio for r in rollouts]
        return Replay(
            torch.cat([self.states, *(r.states for r in rollouts)], 1)[:, -size:],
            torch.cat([self.log_prior, *log_prior], 1)[:, -size:],
            torch.cat([self.worth, worth])[-size:],
        )


@dataclass
class PathState:
    """Path consistency between two rollouts.

    Attributes:
        policy: What is tuned.
        value: Module of (relaxed states, step) -> (n,) assay standard deviations; trained with the policy.
        prior: The frozen reference.
        objective: What is maximised.
        kl_weight: Assay standard deviations per nat.
        replay: The paths to learn from.
        step: Rollouts done.
    """

    config: Config
    policy: DiffusionPrior
    value: nn.Module
    prior: DiffusionPrior
    objective: Objective
    kl_weight: float
    optimiser: torch.optim.Optimizer
    generator: Generator
    replay: Replay
    step: int = 0

    @property
    def is_finished(self) -> bool:
        """All rollouts are done."""
        return self.step >= self.config.num_updates

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers, text."""
        extra = {"value": copy.deepcopy(self.value.state_dict()), "replay": dict(vars(self.replay))}
        return _rollouts.common_state(self) | extra

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from state_dict()."""
        _rollouts.load_common_state(self, state)
        self.value.load_state_dict(state["value"])
        self.replay = Replay(**{name: tensor.to(self.generator.device) for name, tensor in state["replay"].items()})


def init(
    config: Config, prior: DiffusionPrior, objective: Objective, dataset: Dataset | None, generator: Generator
) -> PathState:
    """The state before the first rollout; the offline data are not used beyond the objective.

    Raises:
        ConfigError: The yardstick of kl_weight is not positive.
    """
    require_yardstick(objective)
    weight = default_kl_weight(prior.space.num_free) if config.kl_weight is None else config.kl_weight
    policy, reference = prior.clone(is_trainable=True), prior.clone(is_trainable=False)
    value = _first_value(config, reference, objective, weight, generator.device)
    groups = [
        {"params": list(policy.network.parameters()), "lr": config.learning_rate},
        {"params": list(value.parameters()), "lr": config.value_learning_rate},
    ]
    return PathState(
        config=config,
        policy=policy,
        value=value,
        prior=reference,
        objective=objective,
        kl_weight=weight,
        optimiser=torch.optim.Adam(groups),
        generator=generator,
        replay=_empty_replay(reference),
    )


def step(state: PathState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One rollout and its fits, in place; Info speaks of the policy's own paths, its loss is in nats squared.

    Raises:
        RunFailedError: A reward or the gradient is not finite.
    """
    config = state.config
    num_prior = min(round(config.prior_fraction * config.batch_size), config.batch_size - 1)
    rollout = _rollouts.roll_out(state.policy, state.prior, config.batch_size - num_prior, state.generator)
    rollouts = [rollout]
    if num_prior:
        rollouts.append(_rollouts.roll_out(state.prior, state.prior, num_prior, state.generator))
    judged = _rollouts.judge(state.objective, torch.cat([r.designs for r in rollouts]))
    worth = judged.conservative / state.objective.assay_std
    _rollouts.require_finite(worth, state.step)
    state.replay = state.replay.add(rollouts, worth, config.replay_size)
    losses, norms = [], []
    for _ in range(config.num_fits):
        size = (config.fit_size,)
        rows = torch.randint(len(state.replay.worth), size, generator=state.generator, device=worth.device)
        state.optimiser.zero_grad()
        parts = pieces(rows, num_pieces)
        losses.append(sum(_accumulate(state, state.replay, part, len(part) / len(rows)) for part in parts))
        norms.append(_rollouts.update(state.optimiser, config.clip, average_gradients, state.step))
    state.step += 1
    return _rollouts.inform(rollout, judged, sum(losses) / len(losses), sum(norms) / len(norms))


def imbalance(levels: Tensor, decay: float) -> Tensor:
    """Weighted mean square of the differences of levels (T+1, n) between two steps, (n,) nats squared."""
    steps = torch.arange(len(levels), device=levels.device)
    length = steps[None, :] - steps[:, None]
    weights = torch.where(length > 0, decay ** (length.clamp(min=1) - 1.0), 0.0)
    squares = (levels[:, None] - levels[None, :]).square()
    return torch.einsum("ij,ijn->n", weights / weights.sum(), squares)


def _accumulate(state: PathState, replay: Replay, rows: Tensor, share: float) -> float:
    """Add a share of the gradient of the loss over the paths `rows` (k,); that share of the loss in nats squared.

    The loss is a function of a few numbers per path, whose gradient is taken first; the policy's graph is then built
    one step at a time.
    """
    states, num_steps = replay.states[:, rows], len(replay.log_prior)
    with torch.no_grad():
        log_policy = [state.policy.transition(states[t], t).log_prob(states[t + 1]) for t in range(num_steps)]
    log_ratio = (torch.stack(log_policy) - replay.log_prior[:, rows]).requires_grad_()
    number = torch.arange(num_steps, device=rows.device).repeat_interleave(len(rows))
    values = state.value(state.prior.relax(states[:-1].flatten(0, 1)), number).view(num_steps, -1)
    gained = torch.cat([torch.zeros_like(log_ratio[:1]), log_ratio.cumsum(0)])
    levels = torch.cat([values, replay.worth[None, rows]]) / state.kl_weight - gained
    loss = imbalance(levels, state.config.subtrajectory_decay).mean() * share
    (slopes,) = torch.autograd.grad(loss, log_ratio, retain_graph=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for t, slope in enumerate(slopes):
        log_prob = state.policy.transition(states[t], t).log_prob(states[t + 1])
        (slope * log_prob).sum().backward()
    return float(loss.detach())


def _empty_replay(prior: DiffusionPrior) -> Replay:
    start = prior.init_state(0)
    none = torch.zeros((prior.num_steps, 0), device=start.device)
    return Replay(torch.stack([start] * (prior.num_steps + 1)), none, none[0])


def _first_value(
    config: Config, prior: DiffusionPrior, objective: Objective, weight: float, device: torch.device
) -> StateValue:
    """The constant T log E_prior[exp(reward / T)], from draws that are the same on all workers."""
    value = StateValue(prior, config.value_width, Generator().manual_seed(0)).to(device)
    designs = prior.decode(prior.draw(START_DRAWS, Generator(device).manual_seed(0)))
    worth = _rollouts.judge(objective, designs).conservative / objective.assay_std
    constant = weight * (worth / weight).logsumexp(0) - weight * math.log(START_DRAWS)
    with torch.no_grad():
        value.leave.bias.fill_(float(constant))
    return value
