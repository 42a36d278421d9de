"""The value of a state on the way, learned from the prior's own rollouts.

Rollouts x_0, ..., x_T of the prior with rewards r of their designs; v(x_t, t) = c + s z(x_t, t), z a network that
starts at 0, minimises over the states of all steps

    soft:  E[ exp((r - v) / b) + v / b ],   c = b log E[exp(r / b)],
    mean:  E[ (r - v)^2 ],                  c = E[r].

The soft loss (a Bregman divergence) is convex in v; its derivative vanishes where E[exp((r - v) / b) | x_t] = 1: at the
soft value v = b log E[exp(r / b) | x_t]. A mean of n positive terms that is 1 has no term above n: so beyond n, the
number of rollouts, the exponential goes on as a straight line. No minimum is moved, and no lucky rollout blows up the
loss. b is the temperature, or, where fewer than 32 rollouts would carry the weights exp(r / b) (their effective
number), the lowest b at which 32 do: a softer value that can be learned, the temperature's own once rollouts suffice.

A share of the rollouts is held out; the weights with the best held-out loss are kept. Memory: the states of all steps.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.errors import ConfigError, RunFailedError
from plait.design.records import Progress
from plait.priors._state_values import StateValue
from plait.priors.base import DiffusionPrior, Transition
from plait.rewards.conservatism import Objective
from plait.samplers._smc import checked
from plait.samplers._values import score

Target = Literal["soft", "mean"]
HELD_OUT = 8
"""One rollout in so many is held out."""
LEAST_SAMPLES = 32
"""Effective number of rollouts that soft values are learned from."""
ROLLOUTS_AT_ONCE = 1024
LOOK_INTERVAL = 50
PATIENCE = 6
CLIP = 1.0


class RegressionConfig(BaseModel):
    """Settings of the value network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_rollouts: int = Field(1024, ge=16, le=1_000_000, description="chains of the prior that values are learned from")
    num_value_updates: int = Field(1000, ge=1, le=1_000_000, description="updates of the value network at most")
    value_width: int = Field(64, ge=4, le=2048, description="hidden units of the value network")
    value_batch_size: int = Field(256, ge=1, le=65_536, description="states per update of the value network")
    value_learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's step size for the value network")


@dataclass(frozen=True)
class RolloutValue:
    """v(state, step) in assay standard deviations: centre + spread * network.

    Attributes:
        held_out_loss: Of the kept weights; the constant `centre` has the loss `constant_loss`.
    """

    prior: DiffusionPrior
    network: StateValue
    centre: float
    spread: float
    held_out_loss: float
    constant_loss: float

    @property
    def is_timeless(self) -> bool:
        """The network reads the step."""
        return False

    def __call__(self, transition: Transition, rows: Tensor, step: int, generator: Generator) -> Tensor:
        """Values (k,) of the chains at rows (k,) int64 of a transition, before `step`."""
        value: Tensor = self.centre + self.spread * self.network(self.prior.relax(transition.state[rows]), step)
        return value


def fit(
    config: RegressionConfig,
    prior: DiffusionPrior,
    objective: Objective,
    target: Target,
    temperature: float,
    generator: Generator,
    progress: Progress,
) -> RolloutValue:
    """Roll out the prior, judge the designs in one call, regress.

    Args:
        config: Numbers of rollouts and updates.
        prior: Whose states are valued.
        objective: What finished designs are worth.
        target: "soft" values at the temperature, or "mean" rewards.
        temperature: Assay standard deviations per nat; above 0 for "soft".
        generator: For rollouts, initial weights and minibatches.
        progress: Told of each step and each look at the held-out rollouts.

    Raises:
        ConfigError: A soft value at temperature 0.
        RunFailedError: A reward is NaN or +inf, or the value of the prior's designs is not finite.
    """
    if target == "soft" and temperature == 0:
        raise ConfigError("there is no soft value at temperature 0", hint="regress the mean reward, or set temperature")
    states, rewards = _roll_out(prior, objective, config.num_rollouts, generator, progress)
    centre, scale = float(rewards.mean()), float(rewards.std().clamp(min=1e-6))
    if target == "soft":
        scale = max(temperature, _learnable(rewards))
        centre = scale * (float((rewards.double() / scale).logsumexp(0)) - math.log(len(rewards)))
    if not math.isfinite(centre):
        raise RunFailedError(
            f"the {target} value of the prior's designs is not finite",
            hint="with rewards of -inf use soft values or likeliest completions, or give those designs a low number",
        )
    regression = _Regression(states, (rewards - centre) / scale, target)
    spread = min(1.0, scale)
    network = StateValue(prior, config.value_width, generator).to(rewards.device)
    losses = _train(config, network, prior, regression, spread / scale, generator, progress)
    return RolloutValue(prior, network.requires_grad_(False), centre, spread, *losses)


@torch.no_grad()
def _roll_out(
    prior: DiffusionPrior, objective: Objective, n: int, generator: Generator, progress: Progress
) -> tuple[Tensor, Tensor]:
    """States before each step (T, n, ...) and the rewards of the designs (n,) in assay standard deviations."""
    batches, designs = [], []
    for start in range(0, n, ROLLOUTS_AT_ONCE):
        transition, states = prior.transition(prior.init_state(min(ROLLOUTS_AT_ONCE, n - start)), 0), []
        for step in range(prior.num_steps):
            progress("rolling out the prior", start, n, f"step {step + 1} of {prior.num_steps}")
            states.append(transition.state)
            transition = transition.follow(transition.sample(generator))
        batches.append(torch.stack(states))
        designs.append(transition.complete())
    return torch.cat(batches, 1), checked(score(objective, torch.cat(designs))).float()


def _learnable(rewards: Tensor) -> float:
    """The lowest temperature at which exp(rewards (n,) / temperature) has an effective sample size of LEAST_SAMPLES."""
    finite = rewards[rewards.isfinite()].double()
    low, high = 0.0, float(finite.std()) * 100 if len(finite) > 1 else 0.0
    for _ in range(40):
        middle = (low + high) / 2
        weights = (finite / middle).softmax(0) if middle > 0 else finite
        is_enough = 1 / float(weights.square().sum()) >= LEAST_SAMPLES
        low, high = (low, middle) if is_enough else (middle, high)
    return high


@dataclass(frozen=True)
class _Regression:
    """States (T, n, ...) and rewards (n,), centred and in units of the loss."""

    states: Tensor
    rewards: Tensor
    target: Target

    def loss(self, predicted: Tensor, chains: Tensor) -> Tensor:
        """Mean loss of predictions (k,) for states of these chains (k,)."""
        rewards = self.rewards[chains]
        if self.target == "mean":
            return (predicted - rewards).square().mean()
        surprise, most = rewards - predicted, math.log(len(self.rewards))
        exponential = surprise.clamp(max=most).exp() + math.exp(most) * (surprise - most).clamp(min=0)
        return (exponential + predicted).mean()


def _train(
    config: RegressionConfig,
    network: StateValue,
    prior: DiffusionPrior,
    regression: _Regression,
    gain: float,
    generator: Generator,
    progress: Progress,
) -> tuple[float, float]:
    """Train in place, keep the best weights; held-out losses of those and of the constant."""
    num_steps, n = regression.states.shape[:2]
    device, num_held_out = regression.rewards.device, max(1, n // HELD_OUT)

    def evaluate(steps: Tensor, chains: Tensor) -> Tensor:
        predicted = gain * network(prior.relax(regression.states[steps, chains]), steps)
        return regression.loss(predicted, chains)

    def draw(first: int, last: int, size: int) -> tuple[Tensor, Tensor]:
        steps = torch.randint(num_steps, (size,), generator=generator, device=device)
        return steps, torch.randint(first, last, (size,), generator=generator, device=device)

    held_out = draw(0, num_held_out, 16 * config.value_batch_size)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.value_learning_rate)
    with torch.no_grad():
        constant = best = float(evaluate(*held_out))
    weights, num_stale = copy.deepcopy(network.state_dict()), 0
    for update in range(1, config.num_value_updates + 1):
        optimiser.zero_grad()
        evaluate(*draw(num_held_out, n, config.value_batch_size)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        if update % LOOK_INTERVAL and update < config.num_value_updates:
            continue
        with torch.no_grad():
            loss = float(evaluate(*held_out))
        message = f"held-out loss {loss:.3g}, of a constant {constant:.3g}"
        progress("fitting values", update, config.num_value_updates, message)
        num_stale += 1
        if loss < best:
            best, weights, num_stale = loss, copy.deepcopy(network.state_dict()), 0
        if num_stale == PATIENCE:
            break
    network.load_state_dict(weights)
    return best, constant
