"""Kernels between sequences: how alike two items are by the letters they share, in place or anywhere.

Source: mismatch string kernels (Leslie et al., "Mismatch string kernels for discriminative protein classification",
Bioinformatics 2004) with every number of mismatches discounted: two windows of k letters are worth
rho^(number of mismatches), which is the product over letters of 1 where they agree and rho where not.

* Positional (k = L): k(x, y) = rho^(Hamming distance).
* Windows (k < L): k(x, y) = sum over all windows p of x and q of y of rho^(mismatches), wherever they stand.

Where a sequence and its reverse complement are one item, y's other strand is added. A function
f(x) = sum_i a_i k(x, x_i) over windows is a table of all V^k words, looked up: its cost does not depend on the number
of items x_i. On a simplex, windows are multilinear and the positional kernel is rho^(L - expected matches): both agree
with the kernel at its corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from plait.design.space import DesignSpace

LARGEST_TABLE = 1 << 13
"""Words of the window kernels' tables at most."""


@dataclass(frozen=True)
class SequenceKernel:
    """One kernel of a space.

    Attributes:
        space: Gives V, L and whether both strands are one item.
        k: Letters of a window; L for the positional kernel.
        rho: What a mismatch leaves, 0 to 1.
    """

    space: DesignSpace
    k: int
    rho: float

    @property
    def is_positional(self) -> bool:
        """Letters are compared in place."""
        return self.k == self.space.length

    def gram(self, x: Tensor, y: Tensor) -> Tensor:
        """k(x, y) of tokens (n, L) and (m, L) int64, (n, m) float32."""
        if self.is_positional:
            return self.values(x, y)
        table = self.table(y, torch.eye(len(y)))
        return self.look_up(table, x)

    def with_itself(self, x: Tensor) -> Tensor:
        """k(x, x) of tokens (n, L) int64, (n,) float32: large for items that repeat themselves."""
        num_windows = self.space.length - self.k + 1
        total = torch.zeros(len(x))
        for strand in self._strands(x):
            for shift in range(1 - num_windows, num_windows):
                left, right = x[:, max(0, -shift) :], strand[:, max(0, shift) :]
                shared = min(left.shape[1], right.shape[1])
                differ = (left[:, :shared] != right[:, :shared]).float()
                total += (self.rho ** differ.unfold(1, self.k, 1).sum(-1)).sum(1)
        return total

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """The positional kernel of x, tokens (n, L) or a simplex (n, L, V), and tokens y (m, L): (n, m) float32."""
        size, length = self.space.alphabet.size, self.space.length
        letters = (x if x.is_floating_point() else functional.one_hot(x, size).float()).flatten(1)
        total = letters.new_zeros(len(x), len(y))
        for strand in self._strands(y):
            matches = letters @ functional.one_hot(strand, size).to(letters).flatten(1).T
            total = total + torch.as_tensor(self.rho).to(letters) ** (length - matches)
        return total

    def table(self, y: Tensor, weights: Tensor) -> Tensor:
        """sum_i weights_i k(word, window of y_i) of every word: (V^k, r) float32 for weights (m, r)."""
        size = self.space.alphabet.size
        counts = torch.zeros(size**self.k, weights.shape[1])
        for strand in self._strands(y):
            for column in self._words(strand).T:
                counts.index_add_(0, column, weights.float())
        for axis in range(self.k):
            counts = counts.view(size**axis, size, -1)
            counts = (1 - self.rho) * counts + self.rho * counts.sum(1, keepdim=True)
        return counts.view(size**self.k, -1)

    def look_up(self, table: Tensor, x: Tensor) -> Tensor:
        """The sum over x's windows of a table (V^k, r): (n, r); gradients flow to a simplex x (n, L, V)."""
        num_windows = self.space.length - self.k + 1
        if not x.is_floating_point():
            total = table.new_zeros(len(x), table.shape[1])
            for column in self._words(x).T:
                total += table[column]
            return total
        size = self.space.alphabet.size
        left = table.T.to(x)
        windows = torch.stack([x[:, p : p + self.k] for p in range(num_windows)], 1)  # (n, W, k, V)
        result = left[None, None]  # (1, 1, r, V^k)
        for i in range(self.k):
            result = torch.einsum("nwv,nwrvu->nwru", windows[:, :, i], _unfold(result, size, windows.shape[:2]))
        return result[..., 0].sum(1)

    def _strands(self, y: Tensor) -> list[Tensor]:
        if not self.space.strand_symmetric:
            return [y]
        return [y, torch.from_numpy(self.space.alphabet.complement_tokens())[y.flip(1)]]

    def _words(self, x: Tensor) -> Tensor:
        """Number of the word in each window, (n, W) int64."""
        num_windows = self.space.length - self.k + 1
        words = torch.zeros(len(x), num_windows, dtype=torch.int64)
        for i in range(self.k):
            words = words * self.space.alphabet.size + x[:, i : i + num_windows]
        return words


def _unfold(table: Tensor, size: int, lead: torch.Size) -> Tensor:
    """(.., r, V^j) as (n, W, r, V, V^(j - 1))."""
    return table.expand(*lead, -1, -1).reshape(*lead, table.shape[2], size, table.shape[3] // size)


def window_lengths(space: DesignSpace) -> tuple[int, ...]:
    """Windows worth comparing: 4 and 6 letters of DNA, 2 and 3 of protein; shorter than the sequence."""
    size, longest = space.alphabet.size, 1
    while longest < 6 and size ** (longest + 1) <= LARGEST_TABLE:
        longest += 1
    return tuple(k for k in sorted({max(2, longest - 2), longest}) if k < space.length)
