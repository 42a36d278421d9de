"""Rarity: how seldom the data shows the pieces that a design is made of.

    std(x) = s * max(0, z(x)),  z = mean over kinds of piece of the standardised  1/W sum_w -log(n_w(x) + 1/2)

n_w(x) is how often the data holds the k letters that x has at window w: anywhere, or at that very position (on either
strand where both are one item); two lengths k are used of each kind, the longest that a library of independent letters
would show often enough to be counted. A kind is standardised by what the data's own items have with themselves left
out, z counts from the commonest of them, and s is the standard deviation of the readings.

It is a statistic of the sequences alone: no reading and no model enters it. Whether what is rare is bad (a library
around one wild type, combinations that a cell does not make) or good (a library from which the best were cut away)
is nothing it can tell: rewards.choosing_conservatism asks the readings. Source: the pseudo-count density of
Bellemare et al. 2016 (Unifying Count-Based Exploration and Intrinsic Motivation), with pieces in the place of a density
model. Exact for tokens; for a simplex each window's letters count as independent, so it is differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.rewards.base import ElboFunction, Prediction, RewardModel

_MOST_PIECES = 2_048
"""Lengths with more possible pieces are not counted: 5 letters of DNA, 2 of a protein at most."""
_NUM_LENGTHS = 2
_COUNT_ANYWHERE, _COUNT_IN_PLACE = 5.0, 3.0
"""How often independent letters would show each piece of a length that is still counted."""


@dataclass(frozen=True)
class _Kind:
    """Pieces of one length: (W, V^k) float32 surprises -log(count + 1/2), less their mean over items, over its std."""

    k: int
    surprise: Tensor


@dataclass(eq=False)
class Rarity:
    """Fitted counts.

    Attributes:
        space: The design space.
        scale: Standard deviation of the readings, in the assay's unit.
        kinds: What is counted.
        own: (n,) float64, the items' own z, each with itself left out.
    """

    space: DesignSpace
    scale: float
    kinds: tuple[_Kind, ...]
    own: NDArray[np.float64]
    is_differentiable: bool = True

    def std(self, x: Tensor, prediction: Prediction) -> Tensor:
        """(n,) float32 in the assay's unit; gradients flow to a simplex x."""
        above = self.z(x) - float(self.own.min(initial=0.0))
        return self.scale * above.clamp_min(0.0)

    def z(self, x: Tensor) -> Tensor:
        """Standardised rarity of tokens (n, L) int64 or a simplex (n, L, V), (n,) float32; 0 is an average item."""
        total = torch.zeros(len(x), device=x.device)
        for kind in self.kinds:
            table = kind.surprise.to(x.device)
            if x.is_floating_point():
                total = total + _soft(x, kind.k, table)
            else:
                total = total + table.T.gather(0, _codes(x, kind.k, self.space.alphabet.size)).mean(1)
        return total / max(1, len(self.kinds))


def _soft(simplex: Tensor, k: int, table: Tensor) -> Tensor:
    """Mean surprise over the windows of a simplex (n, L, V), whose letters count as independent, (n,)."""
    windows = simplex.unfold(1, k, 1)  # (n, W, V, k)
    law = windows[..., 0]
    for i in range(1, k):
        law = (law[..., :, None] * windows[..., None, :, i]).flatten(2)
    return torch.einsum("nwc,wc->nw", law, table).mean(1)


def _codes(tokens: Tensor, k: int, size: int) -> Tensor:
    """Number of the piece at each window, (n, L - k + 1) int64."""
    powers = size ** torch.arange(k - 1, -1, -1, device=tokens.device)
    return (tokens.unfold(1, k, 1) * powers).sum(-1)


def fit(dataset: Dataset, reward: RewardModel | None, elbo: ElboFunction | None) -> Rarity:
    """The rarity of pieces in `dataset`; the reward is not looked at. Where no piece can be counted it is 0."""
    space, tokens = dataset.space, torch.as_tensor(dataset.tokens)
    strands = [tokens]
    if space.strand_symmetric:
        strands.append(torch.from_numpy(space.alphabet.complement_tokens())[tokens.flip(1)])
    size, length = space.alphabet.size, space.length
    anywhere, in_place = len(strands) * len(tokens) / _COUNT_ANYWHERE, len(strands) * len(tokens) / _COUNT_IN_PLACE
    possible = [k for k in range(1, length + 1) if size**k <= _MOST_PIECES]
    longest = {
        False: [k for k in possible if size**k <= anywhere * (length - k + 1)][-_NUM_LENGTHS:],
        True: [k for k in possible if size**k <= in_place][-_NUM_LENGTHS:],
    }
    pairs = [_kind(strands, k, size, is_in_place) for is_in_place, lengths in longest.items() for k in lengths]
    own = np.mean([own for _, own in pairs], axis=0) if pairs else np.zeros(len(tokens))
    return Rarity(space, float(dataset.values.std()), tuple(kind for kind, _ in pairs), own)


def _kind(strands: list[Tensor], k: int, size: int, is_in_place: bool) -> tuple[_Kind, NDArray[np.float64]]:
    """Surprises of the pieces of one length, and the items' own standardised rarity with themselves left out."""
    codes = [_codes(strand, k, size) for strand in strands]
    num_windows = codes[0].shape[1]
    offset = torch.arange(num_windows) * size**k if is_in_place else torch.zeros(num_windows, dtype=torch.int64)
    places = [strand + offset for strand in codes]
    count = torch.bincount(torch.cat(places).flatten(), minlength=size**k * (num_windows if is_in_place else 1))
    left = count[places[0]]
    for strand in places:
        for window in strand.T:
            left = left - (places[0] == window[:, None]).long()
    own = _surprise(left).mean(1)
    table = _surprise(count).reshape(num_windows if is_in_place else 1, -1).expand(num_windows, -1)
    mean, std = float(own.mean()), float(own.std(correction=0))
    divisor = std if std > 1e-9 else 1.0
    return _Kind(k, ((table - mean) / divisor).float()), ((own - mean) / divisor).numpy()


def _surprise(count: Tensor) -> Tensor:
    return -torch.log(count.double() + 0.5)
