"""How a value changes with the state: the gradient that tds and classifier_guidance follow.

    v(state) = value of E[finished design | state] = objective(predict_clean(relax(state))) / assay_std

The prediction goes to the reward as letter probabilities, not as the likeliest design: v is then smooth, its gradient
exact, and the gradient of a letter less that of the mask is the change in v to first order when the mask becomes that
letter (exactly so where the reward adds up over positions that the prior predicts independently).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plait.design.errors import RunFailedError
from plait.priors._rows import distinct_rows
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective

_ELEMENTS_AT_ONCE = 1 << 18
"""Elements of relaxed states that one backward pass holds in memory."""


@dataclass(frozen=True)
class Slopes:
    """Values and gradients at n states.

    Attributes:
        states: (n, ...).
        values: (n,) float64, assay standard deviations.
        gradients: Of the values, in the shape of relax(states).
    """

    states: Tensor
    values: Tensor
    gradients: Tensor

    def take(self, index: Tensor) -> Slopes:
        """Of the states at index (k,) int64."""
        return Slopes(self.states[index], self.values[index], self.gradients[index])


def slopes(
    prior: DiffusionPrior, objective: Objective, states: Tensor, step: int, seen: Slopes | None = None
) -> Slopes:
    """Values and gradients at states (n, ...) before `step`: each distinct one once, none that is as it was in `seen`.

    Raises:
        RunFailedError: A gradient is not finite.
    """
    if seen is None:
        return _at_distinct(prior, objective, states, step)
    changed = (states != seen.states).flatten(1).any(1).nonzero()[:, 0]
    if len(changed) == 0:
        return seen
    new = _at_distinct(prior, objective, states[changed], step)
    values, gradients = seen.values.clone(), seen.gradients.clone()
    values[changed], gradients[changed] = new.values, new.gradients
    return Slopes(states, values, gradients)


def _at_distinct(prior: DiffusionPrior, objective: Objective, states: Tensor, step: int) -> Slopes:
    distinct, which = distinct_rows(states)
    rows = max(1, _ELEMENTS_AT_ONCE // max(1, prior.relax(distinct[:1]).numel()))
    pieces = [_differentiate(prior, objective, piece, step) for piece in torch.split(distinct, rows)]
    values, gradients = (torch.cat(each) for each in zip(*pieces, strict=True))
    if not bool(gradients.isfinite().all()):
        raise RunFailedError(
            "the gradient of the reward is not finite", hint="use a sampler that needs none: smc, svdd_pm, best_of_n"
        )
    return Slopes(states, values.double()[which], gradients[which])


@torch.enable_grad()
def _differentiate(prior: DiffusionPrior, objective: Objective, states: Tensor, step: int) -> tuple[Tensor, Tensor]:
    relaxed = prior.relax(states).detach().requires_grad_()
    values = objective(prior.predict_clean(relaxed, step)).conservative / objective.assay_std
    (gradients,) = torch.autograd.grad(values.sum(), relaxed)
    return values.detach(), gradients
