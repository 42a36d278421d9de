"""What finished designs are worth to samplers that weigh particles by reward."""

from __future__ import annotations

import torch
from torch import Tensor

from plait.priors._rows import distinct_rows
from plait.rewards.conservatism import Objective


@torch.no_grad()
def score(objective: Objective, designs: Tensor) -> Tensor:
    """Conservative values in assay standard deviations, (n,) float32, of designs (n, ...): each distinct one once.

    All go to the reward in one call.
    """
    if len(designs) == 0:
        return torch.zeros(0, device=designs.device)
    distinct, which = distinct_rows(designs)
    return (objective(distinct).conservative / objective.assay_std)[which]
