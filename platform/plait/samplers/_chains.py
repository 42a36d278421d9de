"""The reverse chain that samplers share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from plait.priors.base import DiffusionPrior


@torch.no_grad()
def run(prior: DiffusionPrior, n: int, batch_size: int, generator: Generator) -> Tensor:
    """Designs by the prior's own chain, at most batch_size at a time: tokens (n, L) int64."""
    batches = [prior.init_state(0)]
    for start in range(0, n, batch_size):
        state = prior.init_state(min(batch_size, n - start))
        for step in range(prior.num_steps):
            state = prior.transition(state, step).sample(generator)
        batches.append(state)
    return prior.decode(torch.cat(batches))
