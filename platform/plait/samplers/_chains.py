"""The reverse chain that samplers share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from plait.design.records import Progress
from plait.priors.base import DiffusionPrior


@torch.no_grad()
def run(prior: DiffusionPrior, n: int, batch_size: int, generator: Generator, progress: Progress) -> Tensor:
    """Designs by the prior's own chain, at most batch_size at a time: tokens (n, L) int64."""
    batches = [prior.init_state(0)]
    for start in range(0, n, batch_size):
        progress("sampling", start, n, "")
        batches.append(prior.draw(min(batch_size, n - start), generator))
    return prior.decode(torch.cat(batches))
