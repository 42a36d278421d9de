"""Networks that read a partly masked design and say which letter each position should hold."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


class ResidualMlp(nn.Module):
    """All positions at once through `depth` residual layers of `width`; for short designs."""

    def __init__(self, length: int, num_letters: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = (length, num_letters)
        self.enter = nn.Linear(length * (num_letters + 1), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU()) for _ in range(depth)
        )
        self.leave = nn.Linear(width, length * num_letters)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, L, V) of x (n, L, V+1)."""
        hidden = nn.functional.silu(self.enter(x.flatten(1)))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        logits: Tensor = self.leave(hidden)
        return logits.view(-1, *self.shape)


class DilatedCnn(nn.Module):
    """A convolution, then one residual dilated convolution per entry of `dilations`, then two 1x1 layers.

    After the convolutional denoiser of DRAKES (Wang et al. 2025, appendix), with a learned position embedding in place
    of the time embedding: the masks tell the time, and libraries are aligned.
    """

    def __init__(self, length: int, num_letters: int, width: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = nn.Conv1d(num_letters + 1, width, kernel, padding="same")
        self.position = nn.Parameter(torch.zeros(width, length))
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in dilations)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            for dilation in dilations
        )
        self.mix = nn.Conv1d(width, width, 1)
        self.leave = nn.Conv1d(width, num_letters, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, L, V) of x (n, L, V+1)."""
        hidden = nn.functional.relu(self.enter(x.transpose(1, 2))) + self.position
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            hidden = hidden + nn.functional.relu(convolution(norm(hidden)))
        logits: Tensor = self.leave(nn.functional.relu(self.mix(hidden)))
        return logits.transpose(1, 2)


class Denoiser(nn.Module):
    """A backbone restricted to the letters each position allows.

    Its output layer starts at zero: before any training every allowed letter is equally likely.
    """

    allowed: Tensor

    def __init__(self, backbone: ResidualMlp | DilatedCnn, allowed: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("allowed", allowed, persistent=False)
        nn.init.zeros_(backbone.leave.weight)
        if backbone.leave.bias is not None:
            nn.init.zeros_(backbone.leave.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (n, L, V) of x (n, L, V+1) float32; -inf for a letter that its position forbids."""
        logits: Tensor = self.backbone(x)
        return logits.masked_fill(~self.allowed, -torch.inf).log_softmax(-1)


def draw_weights(network: nn.Module, generator: Generator) -> None:
    """Initialise all layers but the output layer from `generator`: He normal weights, zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d) and bool(module.weight.any()):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
