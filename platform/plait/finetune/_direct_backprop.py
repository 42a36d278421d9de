"""Fine-tuning a diffusion prior by backpropagating a differentiable reward through its last steps.

Source: Wang et al. 2025, "Fine-Tuning Discrete Diffusion Models via Reward Optimization with Applications to DNA and
Protein Design" (DRAKES). Each update rolls out `batch_size` designs with the policy and minimises

    loss = -mean(conservative reward of the designs) / assay_std + kl_weight * mean(path KL of policy against prior).

The first steps are hard samples without gradient; in the last `num_soft_steps` the letters are Gumbel-softmax
relaxations, through which the gradient flows. The paper relaxes the mask with the letters; here which positions are
filled is drawn hard: it does not depend on the policy, so no gradient is lost, and chains unmask at the prior's pace
(relaxed together at temperature 1, a chain of 20 steps over DNA has 13 to 16 % of its masks left half way, not 50 %).
The reward sees a straight-through one-hot of the last state. The path KL is the sum over steps of the exact KL between
the two transitions, so it is positive on hard states as well, unlike a term that weights unmasked positions.

Known limits: straight-through gradients are biased, so the target law prior * exp(reward / kl_weight) is aimed at, not
met; the reward must be differentiable.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from plait.design.errors import RunFailedError
from plait.finetune.base import Info
from plait.priors.base import AverageGradients, DiffusionPrior, Transition, split_evenly
from plait.rewards.conservatism import Objective, require_differentiable, require_yardstick

LONGEST_UNCHECKPOINTED = 64

Settle = Callable[[Tensor], Tensor]


def keep_graph(kl: Tensor) -> Tensor:
    """Settle of a caller that goes backward through everything at once."""
    return kl


class RolloutConfig(BaseModel):
    """Settings that every algorithm of this family shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_updates: int = Field(100, ge=1, le=100_000, description="updates of the policy")
    batch_size: int = Field(32, ge=1, le=4096, description="designs per rollout, of all workers together")
    accumulation: int = Field(1, ge=1, le=256, description="rollouts whose gradients are averaged before an update")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="Adam's step size")
    num_soft_steps: int | None = Field(
        None, ge=1, le=1000, description="last steps that carry gradients; default: 2/5 of all, at least 16"
    )
    temperature: float = Field(1.0, gt=0, le=10, description="of the Gumbel-softmax, without unit")
    is_hard_kl_in_loss: bool = Field(
        True,
        description="the KL of the hard first steps is part of the loss (its gradient stops at states), else reported",
    )
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    activation_checkpointing: bool | None = Field(
        None, description="recompute steps in the backward pass: less memory, more time; default: above 64 positions"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the rollout's convolutions and matrix products; weights and losses stay float32"
    )


@dataclass
class BackpropState:
    """A fine-tuner between two updates.

    Attributes:
        policy: What is tuned.
        prior: The frozen reference.
        objective: What is maximised.
        kl_weight: Assay standard deviations per nat of path KL.
        step: Updates done.
        previous: A second frozen reference, the policy of the round before, or None.
        previous_kl_weight: Assay standard deviations per nat of path KL against it.
    """

    config: RolloutConfig
    policy: DiffusionPrior
    prior: DiffusionPrior
    objective: Objective
    kl_weight: float
    optimiser: torch.optim.Optimizer
    generator: Generator
    step: int = 0
    previous: DiffusionPrior | None = None
    previous_kl_weight: float = 0.0

    @property
    def is_finished(self) -> bool:
        """All updates are done."""
        return self.step >= self.config.num_updates

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers, text."""
        return {
            "policy": copy.deepcopy(self.policy.network.state_dict()),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from state_dict()."""
        self.policy.network.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step = int(state["step"])


def init(
    config: RolloutConfig,
    prior: DiffusionPrior,
    objective: Objective,
    kl_weight: float,
    generator: Generator,
    previous: DiffusionPrior | None = None,
    previous_kl_weight: float = 0.0,
) -> BackpropState:
    """The state before the first update; one optimiser for the whole run; starts from `previous` where there is one.

    Raises:
        ConfigError: The reward is not differentiable, or the yardstick of kl_weight is not positive.
    """
    require_differentiable(objective, "direct backpropagation")
    require_yardstick(objective)
    policy = (previous or prior).clone(is_trainable=True)
    return BackpropState(
        config=config,
        policy=policy,
        prior=prior.clone(is_trainable=False),
        objective=objective,
        kl_weight=kl_weight,
        optimiser=torch.optim.Adam(policy.network.parameters(), lr=config.learning_rate),
        generator=generator,
        previous=previous and previous.clone(is_trainable=False),
        previous_kl_weight=previous_kl_weight,
    )


def step(state: BackpropState, average_gradients: AverageGradients, num_pieces: int) -> Info:
    """One update, in place. Pieces of a rollout are rollouts of fewer chains; unique_fraction is that of a piece.

    Raises:
        RunFailedError: The loss is not finite.
    """
    state.optimiser.zero_grad()
    batch = state.config.batch_size
    sizes = split_evenly(batch, min(num_pieces, batch)) * state.config.accumulation
    infos = [_accumulate(state, size) * (size * len(sizes) / sum(sizes)) for size in sizes]
    parameters = list(state.policy.network.parameters())
    average_gradients(parameters)
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, state.config.clip)
    means = torch.stack(infos).mean(0).tolist()
    if not all(map(math.isfinite, [*means, float(grad_norm)])):
        raise RunFailedError(
            f"fine-tuning diverged at update {state.step}", hint="lower learning_rate or raise kl_weight"
        )
    state.optimiser.step()
    state.step += 1
    reward, conservative, kl, loss, unique = means
    return Info(reward, conservative, kl, loss, float(grad_norm), unique)


def rollout(state: BackpropState, settle: Settle = keep_graph, n: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """One batch of chains by the policy.

    Args:
        state: The fine-tuner.
        settle: Gets each part (k,) nats of the hard states' path KL that belongs to the loss as soon as it is known,
            and returns it; it may send the part's gradient on its way and return it detached, so that no more than one
            forward of the hard states is held in memory. The last state does not depend on them.
        n: Number of chains, batch_size by default.

    Returns:
        The relaxed last state (n, L, V+1) with gradients; the leash that belongs to the loss, (n,) in nats of path KL
        against the prior; what to add to it for the whole of that path KL, (n,) nats without gradient: hard steps that
        are only reported, less the share of a second reference.
    """
    config, policy = state.config, state.policy
    first_soft = policy.num_steps - _num_soft_steps(config, policy.num_steps)
    has_gradient = config.is_hard_kl_in_loss and state.kl_weight > 0
    x = policy.init_state(config.batch_size if n is None else n)
    kl, reported = torch.zeros((2, len(x)), device=x.device)
    for visit in policy.walk(len(x), first_soft, state.generator):
        x = visit.transition.state
        if first_soft > 0:
            with torch.set_grad_enabled(has_gradient):
                each, further = _leash(state, visit.transition, x, visit.step)
                each, further = visit.weight * each, visit.weight * further
            if has_gradient:
                kl = kl.index_add(0, visit.chains, settle(each + further))
            reported = reported.index_add(0, visit.chains, -further.detach() if has_gradient else each)
    for number in range(first_soft, policy.num_steps):
        x, each, further = _soft_step(state, x, number)
        kl, reported = kl + each + further, reported - further.detach()
    return x, kl, reported


def straight_through(policy: DiffusionPrior, soft: Tensor) -> tuple[Tensor, Tensor]:
    """Designs of relaxed last states: tokens (n, L) int64, and their one-hot (n, L, V) with the states' gradient."""
    tokens = policy.decode(soft.detach())
    letters = soft[..., :-1]
    hard = torch.nn.functional.one_hot(tokens, letters.shape[-1]).to(letters.dtype)
    return tokens, hard + letters - letters.detach()


def _accumulate(state: BackpropState, n: int) -> Tensor:
    """Roll out n chains, add their part of the gradient; (reward, conservative, kl, loss, unique fraction) of them."""
    share = state.kl_weight / state.config.accumulation / state.config.batch_size

    def settle(kl: Tensor) -> Tensor:
        torch.autograd.backward(share * kl.sum())
        return kl.detach()

    with torch.autocast(state.generator.device.type, torch.bfloat16, enabled=state.config.precision == "bfloat16"):
        soft, kl, reported = rollout(state, settle, n)
    tokens, designs = straight_through(state.policy, soft)
    value = state.objective(designs)
    loss = -value.conservative.mean() / state.objective.assay_std
    if state.kl_weight > 0:
        loss = loss + state.kl_weight * kl.mean()
    part = loss * (n / state.config.batch_size) / state.config.accumulation
    part.backward()  # type: ignore[no-untyped-call]
    unique = tokens.new_tensor(len(torch.unique(tokens, dim=0))) / len(tokens)
    return torch.stack([value.mean.mean(), value.conservative.mean(), (kl + reported).mean(), loss, unique]).detach()


def _leash(state: BackpropState, mine: Transition, x: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """KL of a transition against the prior; that against the second reference, times its weight over the first's."""
    each = mine.kl(state.prior.transition(x, number))
    if state.previous is None:
        return each, torch.zeros_like(each)
    return each, state.previous_kl_weight / state.kl_weight * mine.kl(state.previous.transition(x, number))


def _soft_step(state: BackpropState, x: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    # The noise has a seed of its own, so that a recomputation in the backward pass draws it again.
    seed = int(torch.randint(2**62, (), generator=state.generator, device=state.generator.device))

    def advance(before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = Generator(before.device).manual_seed(seed)
        mine = state.policy.transition(before, number)
        following = mine.rsample(noise, state.config.temperature)
        with torch.set_grad_enabled(state.kl_weight > 0):
            each, further = _leash(state, mine, before, number)
        return following, each, further

    if _is_checkpointed(state):
        following, each, further = checkpoint(advance, x, use_reentrant=False)
        return following, each, further
    return advance(x)


def _is_checkpointed(state: BackpropState) -> bool:
    chosen = state.config.activation_checkpointing
    return state.policy.space.length > LONGEST_UNCHECKPOINTED if chosen is None else chosen


def _num_soft_steps(config: RolloutConfig, num_steps: int) -> int:
    if config.num_soft_steps is not None:
        return min(config.num_soft_steps, num_steps)
    return min(num_steps, max(16, round(0.4 * num_steps)))
