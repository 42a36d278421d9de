"""Networks that hold m independent ensemble members and compute all of them at once.

The first layer of every family reads the same input, so all members together are one wide matrix product; later
layers are batched products over members. No member sees another, and no item sees another (there is no batch norm).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional


def _uniform(shape: tuple[int, ...], fan_in: int, generator: Generator) -> nn.Parameter:
    bound = 1.0 / math.sqrt(fan_in)
    return nn.Parameter((2.0 * torch.rand(shape, generator=generator) - 1.0) * bound)


class _MemberHead(nn.Module):
    """Layers from a member's own inputs (m, n, d) to its hidden units (m, n, h)."""

    def __init__(self, members: int, sizes: tuple[int, ...], generator: Generator) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(_uniform((members, a, b), a, generator) for a, b in pairs)
        self.biases = nn.ParameterList(_uniform((members, 1, b), a, generator) for a, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = functional.relu(torch.baddbmm(bias, x, weight))
        return x

    def in_turn(self, x: Tensor) -> list[Tensor]:
        """Each member's hidden units (n, h) from inputs of all members (n, d), one after another; without gradients."""
        hidden = [x] * len(self.weights[0])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            each = zip(bias[:, 0].unbind(), hidden, weight.unbind(), strict=True)
            hidden = [functional.relu(torch.addmm(*layer), inplace=True) for layer in each]
        return hidden


class MemberNetwork(nn.Module):
    """m members; `features` is each member's last hidden layer, `forward` a linear read-out of it.

    Attributes:
        members: m.
        chunk_letters: Letters of a large batch that are best predicted at a time; measured at L = 50 on a CPU.
    """

    chunk_letters = 4096
    """The windows of so many letters fit a core's cache: up to 2 times faster than all at once."""

    def __init__(self, members: int, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.members = members
        self.read_out = _uniform((members, hidden, 1), hidden, generator)
        self.offset = nn.Parameter(torch.zeros(members, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        """(m, n, h) from a simplex x (n, L, V)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(m, n) standardised predictions of a simplex x (n, L, V)."""
        return torch.baddbmm(self.offset, self.features(x), self.read_out)[..., 0]


class WideConvolution(MemberNetwork):
    """One wide convolution, global max and mean pooling, two hidden layers: a motif counts wherever it stands."""

    def __init__(
        self, members: int, length: int, letters: int, filters: int, kernel: int, hidden: int, generator: Generator
    ) -> None:
        super().__init__(members, hidden, generator)
        self.filters, self.width = filters, kernel
        self.kernel = _uniform((kernel * letters, members * filters), letters * kernel, generator)
        self.kernel_bias = _uniform((members * filters,), letters * kernel, generator)
        self.head = _MemberHead(members, (self._head_inputs(length, letters), hidden, hidden), generator)

    def _head_inputs(self, length: int, letters: int) -> int:
        return 2 * self.filters

    def _pooled(self, x: Tensor) -> Tensor:
        """(m, n, 2 filters): the convolution as one matrix product over windows (1.2 to 3 times conv1d on a CPU)."""
        edge = self.width // 2
        windows = functional.pad(x, (0, 0, edge, edge)).unfold(1, self.width, 1).transpose(2, 3)
        flat = windows.reshape(x.shape[0] * x.shape[1], -1)
        mapped = functional.relu(torch.addmm(self.kernel_bias, flat, self.kernel)).reshape(*x.shape[:2], -1)
        # The backward pass of max is up to 1.4 times faster, the forward pass of amax twice.
        highest = mapped.max(1).values if torch.is_grad_enabled() else mapped.amax(1)
        pooled = torch.stack([highest, mapped.mean(1)], dim=1)
        return pooled.reshape(len(x), 2, self.members, self.filters).permute(2, 0, 1, 3).flatten(2)

    def features(self, x: Tensor) -> Tensor:
        """(m, n, h) from a simplex x (n, L, V)."""
        hidden: Tensor = self.head(self._pooled(x))
        return hidden


class PositionalConvolution(WideConvolution):
    """The wide convolution whose hidden layers also see which letter stands where."""

    def _head_inputs(self, length: int, letters: int) -> int:
        return 2 * self.filters + length * letters

    def features(self, x: Tensor) -> Tensor:
        """(m, n, h) from a simplex x (n, L, V)."""
        letters = x.flatten(1).expand(self.members, -1, -1)
        hidden: Tensor = self.head(torch.cat([self._pooled(x), letters], dim=-1))
        return hidden


class LetterPerceptron(MemberNetwork):
    """Two hidden layers on the letters themselves: position is everything."""

    chunk_letters = 32_768
    """It has no windows: chunks of 4,096 letters take about 1.2 times as long."""

    def __init__(self, members: int, length: int, letters: int, hidden: int, generator: Generator) -> None:
        super().__init__(members, hidden, generator)
        self.head = _MemberHead(members, (length * letters, hidden, hidden), generator)

    def features(self, x: Tensor) -> Tensor:
        """(m, n, h) from a simplex x (n, L, V)."""
        hidden: Tensor = self.head(x.flatten(1).expand(self.members, -1, -1))
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        """(m, n) standardised predictions of a simplex x (n, L, V); large batches one member after another.

        Measured on a CPU at L = 50: the batched product takes .3 to .8 times as long up to 128 items, 1.05 from 512.
        """
        if torch.is_grad_enabled() or x.is_cuda or len(x) < 192:
            return super().forward(x)
        each = zip(self.offset[:, 0].unbind(), self.head.in_turn(x.flatten(1)), self.read_out.unbind(), strict=True)
        return torch.stack([torch.addmm(*layer)[:, 0] for layer in each])
