"""p(y | x): in which quantile bin of the measured values a design's value falls, learnt from the measured items.

A mixture of a few small networks that start at the bins' shares. Whole groups of related items are held out, and the
mixture stops where its log-loss on them is least: with data that tell nothing it stays at the shares. That makes it
honest near the data; far from them no classifier is.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.priors._conditional import both_strands
from plait.rewards._networks import PositionalConvolution
from plait.rewards.splits import hold_out

MEMBERS, FILTERS, HIDDEN = 4, 32, 64
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
BATCH, MOST_STEPS, LOOK_EVERY, PATIENCE = 256, 1000, 10, 10
HELD_OUT = 0.2


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier.

    Attributes:
        network: The mixture, frozen.
        shares: (K,) float32, the share of the items in each bin: the prior of y.
        log_loss: -log p(y | x) on held-out items, nats; they also chose when to stop, so it is a little flattered.
        chance: The same of `shares` alone. No better than that, and designs cannot be told apart.
        accuracy: How often the likeliest bin is right on those items.
    """

    network: nn.Module
    shares: Tensor
    log_loss: float
    chance: float
    accuracy: float

    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(y | x) of all bins, (n, K) nats, for tokens (n, L) int64 or a simplex (n, L, V) float (gradients)."""
        logits: Tensor = self.network(x)
        return logits


class _Mixture(nn.Module):
    def __init__(self, space: DesignSpace, shares: Tensor, generator: Generator) -> None:
        super().__init__()
        self.num_letters = space.alphabet.size
        kernel = min(7 if space.length <= 12 else 11, 2 * (space.length // 2) + 1)
        self.members = PositionalConvolution(
            MEMBERS, space.length, self.num_letters, FILTERS, kernel, HIDDEN, generator
        )
        self.read_out = nn.Parameter(torch.zeros(MEMBERS, HIDDEN, len(shares)))
        self.offset = nn.Parameter(shares.log().expand(MEMBERS, 1, -1).clone())

    def each(self, x: Tensor) -> Tensor:
        """Log-probabilities by each member, (m, n, K)."""
        letters = x if x.is_floating_point() else functional.one_hot(x, self.num_letters).float()
        return torch.baddbmm(self.offset, self.members.features(letters), self.read_out).log_softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.each(x).logsumexp(0) - math.log(MEMBERS)


def fit(dataset: Dataset, bins: NDArray[np.int64], seed: int, device: torch.device) -> Classifier:
    """A classifier of `bins`, (n,) int64 from 0, the same on every worker that passes the same seed."""
    generator = Generator().manual_seed(seed)
    kept, held_out = hold_out(dataset, seed, HELD_OUT)
    shares = torch.from_numpy(np.bincount(bins) / len(bins)).float()
    x, y = _examples(dataset, bins, kept)
    unseen, truth = _examples(dataset, bins, held_out)
    network = _Mixture(dataset.space, shares, generator)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    lowest = chance = _log_loss(network, unseen, truth)
    best, num_stale = copy.deepcopy(network.state_dict()), 0
    for step in range(1, MOST_STEPS + 1):
        batch = torch.randint(len(x), (BATCH,), generator=generator)
        each = network.each(x[batch])
        loss = functional.nll_loss(each.flatten(0, 1), y[batch].repeat(MEMBERS))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        if step % LOOK_EVERY == 0:
            log_loss, num_stale = _log_loss(network, unseen, truth), num_stale + 1
            if log_loss < lowest:
                lowest, num_stale, best = log_loss, 0, copy.deepcopy(network.state_dict())
            if num_stale >= PATIENCE:
                break
    network.load_state_dict(best)
    with torch.no_grad():
        accuracy = float((network(unseen).argmax(-1) == truth).float().mean())
    return Classifier(network.requires_grad_(False).to(device), shares.to(device), lowest, chance, accuracy)


def _examples(dataset: Dataset, bins: NDArray[np.int64], index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Tokens and bins of the items at `index`, both strands where they are one item."""
    tokens = both_strands(dataset.space, torch.from_numpy(dataset.tokens[index]))
    return tokens, torch.from_numpy(bins[index]).repeat(len(tokens) // len(index))


@torch.no_grad()
def _log_loss(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return float(functional.nll_loss(network(x), y))
