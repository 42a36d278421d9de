"""CTRL: a prior is taught a new condition by reinforcement learning, with a classifier of the condition as reward.

Source: Zhao et al. 2024, "Adding Conditional Control to Diffusion Models with Reinforcement Learning". A classifier
p(y | x) is learnt from the measured items, y = the quantile bin of an item's measured value, and the policy p(x | y)
maximises

    E_y { E_(x ~ policy(. | y)) [ gamma log p(y | x) ] - KL(path of policy(. | y) || path of prior) },   y ~ its shares,

whose best law is prior(x) p(y | x)^gamma / Z for every y; gamma = 1 is Bayes' rule. The condition enters by an
embedding that starts at 0, beside adapters of low rank on the frozen prior's weights: only those are trained. The mean
over y is exact: each update rolls out every condition, batch_size / K designs each. The gradient goes through relaxed
last steps and the classifier. `state.policy` is the policy at `condition`, an ordinary prior with embedding and
adapters folded in.

The labels come from the data alone. The campaign's objective is only reported, so a black box will do: Info holds its
value, the path KL and the unique fraction of the designs at `condition`. The loss is that of all conditions.

Known limits: straight-through gradients are biased, so the law above is aimed at, not met, and adapters of low rank
cannot represent everything. A classifier knows bins, not values: once a design surely lies in the best bin, nothing
asks for more.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from plait.design.errors import BadInputError, ConfigError, RunFailedError
from plait.design.records import Dataset
from plait.finetune import _classifier
from plait.finetune._classifier import Classifier
from plait.finetune._direct_backprop import BackpropState, RolloutConfig, rollout, straight_through
from plait.finetune.base import Info
from plait.priors._conditional import Conditional, value_conditions
from plait.priors.base import AverageGradients, DiffusionPrior, keep_gradients, split_evenly
from plait.rewards.conservatism import Objective

needs_gradient = False
divided = ("batch_size",)


class Config(RolloutConfig):
    """Settings of CTRL."""

    batch_size: int = Field(32, ge=1, le=4096, description="designs per rollout: all workers, all conditions")
    num_conditions: int = Field(4, ge=2, le=100, description="quantile bins of the measured values, K")
    condition: int | None = Field(
        None, ge=0, description="bin, from 0 for the lowest, at which the policy is asked for; default the highest"
    )
    gamma: float = Field(1.0, gt=0, le=1000, description="weight of log p(condition | design); 1 is Bayes' rule")
    rank: int = Field(8, ge=1, le=1024, description="of the adapters")
    seed: int = Field(0, ge=0, description="draws classifier and adapters, the same on all workers")


@dataclass
class State:
    """A fine-tuner between two updates.

    Attributes:
        conditional: The prior with embedding and adapters, the only things trained.
        prior: The frozen reference.
        objective: The campaign's objective, only reported.
        classifier: p(y | x), with what it is worth on held-out items.
        condition: The bin at which the policy is asked for.
        step: Updates done.
    """

    config: Config
    conditional: Conditional
    prior: DiffusionPrior
    objective: Objective
    classifier: Classifier
    condition: int
    optimiser: torch.optim.Optimizer
    generator: Generator
    step: int = 0

    @property
    def policy(self) -> DiffusionPrior:
        """The policy at `condition` as it is now, an independent frozen model."""
        return self.conditional.fold(self.condition)

    @property
    def is_finished(self) -> bool:
        """All updates are done."""
        return self.step >= self.config.num_updates

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers, text."""
        return {
            "conditional": copy.deepcopy(self.conditional.state_dict()),
            "classifier": copy.deepcopy(self.classifier.network.state_dict()),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from state_dict()."""
        self.conditional.load_state_dict(state["conditional"])
        self.classifier.network.load_state_dict(state["classifier"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step = int(state["step"])


def init(
    config: Config, prior: DiffusionPrior, objective: Objective, dataset: Dataset | None, generator: Generator
) -> State:
    """Fit the classifier; the policy is the prior under every condition until the first update.

    Raises:
        ConfigError: No data, too few or of equal values, fewer bins than `condition` asks for, or a prior whose network
            hears no condition.
        BadInputError: The classifier does no better on held-out items than the shares of the bins.
    """
    dataset, bins = value_conditions(dataset, config.num_conditions, "ctrl")
    highest = int(bins.max())
    if config.condition is not None and config.condition > highest:
        raise ConfigError(
            f"condition {config.condition} is asked for, and the values make bins 0 to {highest}",
            hint="ask for a lower condition, or raise num_conditions",
        )
    conditional = Conditional(prior, highest + 1, config.rank, config.seed)
    classifier = _classifier.fit(dataset, bins, config.seed, conditional.embedding.device)
    if not classifier.log_loss < classifier.chance:
        raise BadInputError(
            f"{len(dataset)} measured items do not tell in which of {highest + 1} bins a held-out value falls",
            hint="measure more items, or lower num_conditions",
        )
    return State(
        config=config,
        conditional=conditional,
        prior=prior.clone(is_trainable=False),
        objective=objective,
        classifier=classifier,
        condition=highest if config.condition is None else config.condition,
        optimiser=torch.optim.Adam(conditional.trained(), lr=config.learning_rate),
        generator=generator,
    )


def step(state: State, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One update, in place. Pieces of a condition's rollout are rollouts of fewer chains.

    Raises:
        RunFailedError: The loss is not finite.
    """
    state.optimiser.zero_grad()
    parameters, shares = state.conditional.trained(), state.classifier.shares.tolist()
    size = math.ceil(state.config.batch_size / len(shares))
    sizes = split_evenly(size, min(num_pieces, size))
    rollouts = [
        _accumulate(state, y, share * (n / size), n)
        for _ in range(state.config.accumulation)
        for n in sizes
        for y, share in enumerate(shares)
    ]
    average_gradients(parameters)
    grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, state.config.clip))
    loss = float(torch.stack([r.loss for r in rollouts]).sum())
    if not math.isfinite(loss) or not math.isfinite(grad_norm):
        raise RunFailedError(f"fine-tuning diverged at update {state.step}", hint="lower learning_rate or gamma")
    state.optimiser.step()
    state.step += 1
    mine = [rollout for rollout in rollouts if rollout.condition == state.condition]
    tokens, kl = torch.cat([r.tokens for r in mine]), float(torch.cat([r.kl for r in mine]).mean())
    with torch.no_grad():
        value = state.objective(tokens)
    unique = len(torch.unique(tokens, dim=0)) / len(tokens)
    return Info(float(value.mean.mean()), float(value.conservative.mean()), kl, loss, grad_norm, unique)


@dataclass(frozen=True)
class _Rollout:
    """Designs (n, L), path KL (n,) nats and share of the loss () of one condition."""

    condition: int
    tokens: Tensor
    kl: Tensor
    loss: Tensor


def _accumulate(state: State, condition: int, share: float, n: int) -> _Rollout:
    """Roll out n chains of one condition, and add the gradients of their `share` of the loss."""
    config = state.config
    chains = BackpropState(
        config=config,
        policy=state.conditional.given(condition),
        prior=state.prior,
        objective=state.objective,
        kl_weight=1.0,
        optimiser=state.optimiser,
        generator=state.generator,
    )
    with torch.autocast(state.generator.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        soft, kl, reported = rollout(chains, n=n)
    tokens, designs = straight_through(chains.policy, soft)
    log_prob = state.classifier.log_prob(designs)[:, condition]
    loss = share / config.accumulation * (kl - config.gamma * log_prob).mean()
    torch.autograd.backward(loss)
    return _Rollout(condition, tokens, (kl + reported).detach(), loss.detach())
