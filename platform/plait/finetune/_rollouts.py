"""What derivative-free fine-tuners share: chains of hard states under two laws, their worth, one optimiser update."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from plait.design.errors import RunFailedError
from plait.finetune.base import Info
from plait.priors.base import AverageGradients, DiffusionPrior, Transition
from plait.rewards.conservatism import Objective, ObjectiveValue


@dataclass(frozen=True)
class Rollout:
    """n chains of T steps, drawn by one model (the actor) and compared with another (the reference).

    Attributes:
        states: (T+1, n, ...) hard states; the last are finished.
        designs: (n, L) int64, the last states decoded.
        references: The reference's T transitions from states[0..T-1], network outputs kept.
        log_prob: (T, n) log-probability of each step under the actor, nats.
        log_ratio: (T, n) the same less that under the reference; what both say of which positions to fill cancels.
        kl: (T, n) exact KL of each transition, actor against reference, nats.
    """

    states: Tensor
    designs: Tensor
    references: list[Transition]
    log_prob: Tensor
    log_ratio: Tensor
    kl: Tensor


@torch.no_grad()
def roll_out(actor: DiffusionPrior, reference: DiffusionPrior, n: int, generator: Generator) -> Rollout:
    """Draw n >= 1 chains by the actor; a state that did not change goes through neither network again."""
    states = [actor.init_state(n)]
    mine, theirs = actor.transition(states[0], 0), reference.transition(states[0], 0)
    references, log_probs, log_ratios, kls = [], [], [], []
    for _ in range(actor.num_steps):
        kls.append(mine.kl(theirs))
        states.append(mine.sample(generator))
        log_probs.append(mine.log_prob(states[-1]))
        log_ratios.append(log_probs[-1] - theirs.log_prob(states[-1]))
        references.append(theirs)
        mine, theirs = mine.follow(states[-1]), theirs.follow(states[-1])
    return Rollout(
        torch.stack(states),
        actor.decode(states[-1]),
        references,
        torch.stack(log_probs),
        torch.stack(log_ratios),
        torch.stack(kls),
    )


@torch.no_grad()
def judge(objective: Objective, designs: Tensor) -> ObjectiveValue:
    """The objective's view of designs (n, L) int64, each distinct one asked for once, all in one call."""
    distinct, which = torch.unique(designs, dim=0, return_inverse=True)
    found = objective(distinct)
    return ObjectiveValue(found.conservative[which], found.mean[which], found.std[which])


def update(optimiser: torch.optim.Optimizer, clip: float, average_gradients: AverageGradients, number: int) -> float:
    """One optimiser update from the gradients that lie ready: averaged once, each parameter group clipped by itself.

    Returns:
        The gradient norm of all parameters before clipping.

    Raises:
        RunFailedError: The gradient is not finite; `number` says in which update of the policy.
    """
    groups = [group["params"] for group in optimiser.param_groups]
    average_gradients([parameter for group in groups for parameter in group])
    norms = torch.stack([torch.nn.utils.clip_grad_norm_(group, clip) for group in groups])
    require_finite(norms, number)
    optimiser.step()
    return float(norms.norm())


def require_finite(figures: Tensor, number: int) -> None:
    """Refuse to go on where a figure of update `number` is not finite.

    Raises:
        RunFailedError: One is not.
    """
    if not bool(figures.isfinite().all()):
        raise RunFailedError(f"fine-tuning diverged at update {number}", hint="lower learning_rate or raise kl_weight")


def inform(rollout: Rollout, judged: ObjectiveValue, loss: float, grad_norm: float) -> Info:
    """What an update saw, of a rollout by the policy against the prior, whose n designs come first in `judged`."""
    n = len(rollout.designs)
    mean, conservative = judged.mean[:n].mean(), judged.conservative[:n].mean()
    unique = len(torch.unique(rollout.designs, dim=0)) / n
    return Info(float(mean), float(conservative), float(rollout.kl.sum(0).mean()), loss, grad_norm, unique)


class Tuned(Protocol):
    """What every state of a fine-tuner holds."""

    policy: DiffusionPrior
    optimiser: torch.optim.Optimizer
    generator: Generator
    step: int


def common_state(state: Tuned) -> dict[str, Any]:
    """Weights, optimiser, generator and counter, as state_dict() has them."""
    return {
        "policy": copy.deepcopy(state.policy.network.state_dict()),
        "optimiser": copy.deepcopy(state.optimiser.state_dict()),
        "generator": state.generator.get_state(),
        "step": state.step,
    }


def load_common_state(state: Tuned, saved: dict[str, Any]) -> None:
    """Go on from common_state()."""
    state.policy.network.load_state_dict(saved["policy"])
    state.optimiser.load_state_dict(saved["optimiser"])
    state.generator.set_state(saved["generator"])
    state.step = int(saved["step"])
