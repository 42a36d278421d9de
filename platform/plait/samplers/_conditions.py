"""What cfg and ddom share: a prior taught the bin of each measured value, sampled at the best bin with guidance.

Training minimises, from the prior's weights on, over the items x with value bin y and weight w,

    E_(x,y) E_{k ~ uniform 1..F} (w/k) sum over k masked positions of -log p(letter | unmasked letters, y or none),

y replaced by none with probability `dropout`. Whole groups of related items are held out; the averaged weights that
bound them best are kept, the untrained ones (the prior itself under every bin) if none do better. Sampling steps by

    log p(letter) = log p(letter | none) + (1 + guidance) (log p(letter | best bin) - log p(letter | none)) + constant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress
from plait.priors._conditional import Conditional, both_strands, value_conditions
from plait.priors._masking import MaskedDiffusion
from plait.priors.base import DiffusionPrior
from plait.rewards.splits import hold_out
from plait.samplers.base import Samples

HELD_OUT_ITEMS = 256
HELD_OUT_DRAWS = 8
ROWS_AT_ONCE = 512
LIGHTEST = 1e-6
"""Weight of an item at least: where all held-out items are light, they judge alike."""
TASK = "teaching the prior conditions"
Weigh = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Weights (n,) of items from their values (n,)."""


class ConditionsConfig(BaseModel):
    """Settings that samplers of this family share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_bins: int | None = Field(
        None, ge=2, le=1000, description="quantile bins of the measured values; default one per 50 items, 2 to 10"
    )
    guidance: float = Field(1.0, ge=0, le=100, description="gamma: 0 samples the conditional model itself")
    dropout: float = Field(0.1, gt=0, lt=1, description="how often an item is learnt without its condition")
    num_train_steps: int = Field(1000, ge=0, le=1_000_000, description="updates of the conditional model at most")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="Adam's step size")
    train_batch_size: int = Field(128, ge=1, le=65_536, description="items per update")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    holdout_fraction: float = Field(0.1, gt=0, lt=1, description="share of the items never trained on")
    validation_interval: int = Field(25, ge=1, description="updates between two looks at the held-out items")
    patience: int = Field(10, ge=1, description="looks without a better held-out bound before stopping")
    batch_size: int = Field(1024, ge=1, le=1_000_000, description="chains that run side by side")


@dataclass(frozen=True)
class State:
    """What sample() needs.

    Attributes:
        none: The trained model without a condition.
        best: The same under the best bin.
        bounds: Nats per masked position on held-out items: the prior's, the trained model's without condition, and
            with it. Where the last two are equal, the bins tell nothing that guidance could follow.
    """

    config: ConditionsConfig
    none: MaskedDiffusion
    best: MaskedDiffusion
    bounds: tuple[float, float, float]


@dataclass(frozen=True)
class _Items:
    """Tokens (n, L), conditions (n,) int64 and weights (n,) float32 of measured items."""

    tokens: Tensor
    conditions: Tensor
    weights: Tensor

    def take(self, index: Tensor) -> _Items:
        return _Items(self.tokens[index], self.conditions[index], self.weights[index])


def prepare(
    algorithm: str,
    config: ConditionsConfig,
    prior: DiffusionPrior,
    dataset: Dataset | None,
    weigh: Weigh,
    generator: Generator,
    progress: Progress,
) -> State:
    """Train the conditional model.

    Raises:
        ConfigError: No data, too few, of equal values or outside the prior's space; a prior that hears no condition.
    """
    num_bins = config.num_bins or min(10, max(2, len(dataset or ()) // 50))
    dataset, bins = value_conditions(dataset, num_bins, algorithm)
    conditional = Conditional(prior, int(bins.max()) + 1)
    if not bool(conditional.model.fits(torch.from_numpy(dataset.tokens)).all()):
        raise ConfigError(
            f"measured items lie outside the prior's space {prior.space.template}", hint="restrict the dataset to it"
        )
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    weights, device = weigh(dataset.values), conditional.embedding.device
    kept, held_out = (
        _items(dataset, bins, weights, index, device) for index in hold_out(dataset, seed, config.holdout_fraction)
    )
    shuffled = torch.randperm(len(held_out.tokens), generator=generator, device=generator.device)
    held_out = held_out.take(shuffled[:HELD_OUT_ITEMS].to(device))
    return _train(config, conditional, kept, held_out, generator, progress)


def _items(
    dataset: Dataset,
    bins: NDArray[np.int64],
    weights: NDArray[np.float64],
    index: NDArray[np.int64],
    device: torch.device,
) -> _Items:
    tokens = both_strands(dataset.space, torch.from_numpy(dataset.tokens[index]))
    repeats = len(tokens) // len(index)
    conditions = torch.from_numpy(bins[index]).repeat(repeats)
    bearing = torch.from_numpy(weights[index]).float().clamp(min=LIGHTEST).repeat(repeats)
    return _Items(tokens.to(device), conditions.to(device), bearing.to(device))


def _train(
    config: ConditionsConfig,
    conditional: Conditional,
    items: _Items,
    held_out: _Items,
    generator: Generator,
    progress: Progress,
) -> State:
    """Updates until the held-out bound stops rising."""
    model, average = conditional.model, copy.deepcopy(conditional)
    held_out = held_out.take(torch.arange(len(held_out.tokens)).repeat_interleave(HELD_OUT_DRAWS))
    draws = [model.draw_sizes(HELD_OUT_DRAWS, generator) for _ in range(len(held_out.tokens) // HELD_OUT_DRAWS)]
    masks = model.draw_masks(torch.cat(draws), generator)
    untrained = highest = _bound(average, held_out, masks, held_out.conditions)
    best, num_stale = copy.deepcopy(average.state_dict()), 0
    optimiser = torch.optim.Adam(conditional.trained(), lr=config.learning_rate)
    for step in range(1, config.num_train_steps + 1):
        _update(config, conditional, items, optimiser, generator)
        decay = min(0.9999, step / (9 + step))
        with torch.no_grad():
            for mean, new in zip(average.trained(), conditional.trained(), strict=True):
                mean.lerp_(new, 1 - decay)
        if step % config.validation_interval == 0 or step == config.num_train_steps:
            bound = _bound(average, held_out, masks, held_out.conditions)
            progress(TASK, step, config.num_train_steps, f"{bound:.3f} nats held out")
            num_stale += 1
            if bound > highest:
                highest, num_stale, best = bound, 0, copy.deepcopy(average.state_dict())
            if num_stale >= config.patience:
                break
    average.load_state_dict(best)
    without = _bound(average, held_out, masks, torch.full_like(held_out.conditions, average.none))
    told = f"nats held out: the prior {untrained:.3f}, without conditions {without:.3f}, with them {highest:.3f}"
    progress(TASK, config.num_train_steps, config.num_train_steps, told)
    none, given = average.fold(average.none), average.fold(average.num_conditions - 1)
    return State(config, none, given, (untrained, without, highest))


def _update(
    config: ConditionsConfig,
    conditional: Conditional,
    items: _Items,
    optimiser: torch.optim.Optimizer,
    generator: Generator,
) -> None:
    """One step down the weighted bound, in place."""
    size, device = config.train_batch_size, items.tokens.device
    batch = items.take(torch.randint(len(items.tokens), (size,), generator=generator, device=device))
    is_dropped = torch.rand(size, generator=generator, device=device) < config.dropout
    given = conditional.given(torch.where(is_dropped, conditional.none, batch.conditions))
    likelihood = given.denoising_log_likelihood(batch.tokens, generator) / len(given.free)
    optimiser.zero_grad()
    torch.autograd.backward(-(batch.weights * likelihood).mean())
    torch.nn.utils.clip_grad_norm_(conditional.trained(), config.clip)
    optimiser.step()


@torch.no_grad()
def _bound(conditional: Conditional, items: _Items, masks: Tensor, conditions: Tensor) -> float:
    """Weighted mean log-likelihood per masked position, nats."""
    pieces = [
        conditional.given(conditions[rows]).log_likelihood(items.tokens[rows], masks[rows])
        for rows in torch.split(torch.arange(len(masks), device=masks.device), ROWS_AT_ONCE)
    ]
    return float((items.weights * torch.cat(pieces) / masks.sum(-1)).sum() / items.weights.sum())


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress) -> Samples:
    """Chains by both models at once; log-weights are 0."""
    none, best = state.none, state.best
    before = none.rows_forwarded + best.rows_forwarded
    batches = [none.init_state(0)]
    for start in range(0, n, state.config.batch_size):
        states = none.init_state(min(state.config.batch_size, n - start))
        plain, guided = none.transition(states, 0), best.transition(states, 0)
        for step in range(none.num_steps):
            progress("sampling", start * none.num_steps + step * len(states), n * none.num_steps, "")
            states = plain.blend(guided, 1 + state.config.guidance).sample(generator)
            plain, guided = plain.follow(states), guided.follow(states)
        batches.append(states)
    tokens = none.decode(torch.cat(batches))
    forwards = none.rows_forwarded + best.rows_forwarded - before
    return Samples(tokens, torch.zeros(n, device=tokens.device), forwards)
