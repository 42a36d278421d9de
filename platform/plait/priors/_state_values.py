"""A network that reads a state of the chain and the step, and says what the finished design will be worth."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from plait.priors._backbones import draw_weights
from plait.priors.base import DiffusionPrior


class StateValue(nn.Module):
    """v(state, step): the whole state through two hidden layers, and, for sequences, pooled windows beside it.

    Starts as the constant 0. Reads relaxed states (DiffusionPrior.relax), so that gradients can be taken at them.
    """

    def __init__(self, prior: DiffusionPrior, width: int, generator: Generator) -> None:
        super().__init__()
        shape = prior.relax(prior.init_state(1)).shape[1:]
        self.num_steps = prior.num_steps
        self.windows = nn.Conv1d(shape[-1], width, 7, padding="same") if len(shape) == 2 else None
        inputs = shape.numel() + 1 + (2 * width if self.windows is not None else 0)
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.leave = nn.Linear(width, 1)
        draw_weights(self, generator)
        nn.init.zeros_(self.leave.weight)

    def forward(self, relaxed: Tensor, step: Tensor | int) -> Tensor:
        """Values (n,) of relaxed states (n, ...) float32 before `step`, one for all or (n,); num_steps is the end."""
        time = torch.as_tensor(step, device=relaxed.device).expand(len(relaxed)) / self.num_steps
        inputs = [relaxed.flatten(1), time[:, None].to(relaxed.dtype)]
        if self.windows is not None:
            seen = functional.relu(self.windows(relaxed.transpose(1, 2)))
            inputs += [seen.mean(2), seen.amax(2)]
        value: Tensor = self.leave(self.layers(torch.cat(inputs, 1)))
        return value[:, 0]
