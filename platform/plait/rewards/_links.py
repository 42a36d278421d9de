"""The scale on which a reward model is fitted: the readings as they are, or their logarithm where they are products.

    t = log(y + floor),    y(t) = exp(min(t, c)) (1 + max(t - c, 0)) - floor,    c = ceiling

Up to the ceiling the logarithm and back are exact. Past it, far above all readings, an exponential would turn a small
error of the fit into any number, so y goes on along its tangent: designs keep their order and values stay finite.

Limits: readings that are to be made small reach a reward model negated and so are never fitted by their logarithm,
whatever the scale asked for; give a reading that is a product and is to be small as its inverse, to be made large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import skew
from torch import Tensor

Scale = Literal["auto", "identity", "log"]

_REACH = 10.0
"""Ranges of the readings above the highest up to which the exponential is trusted."""
_LARGEST = 1e35
"""The exponential ends here at the latest: a float32 holds some thousand times as much."""


@dataclass(frozen=True)
class Link:
    """The formula at the top of the file, or t = y where floor is None.

    Attributes:
        floor: In the assay's unit: half the smallest positive reading, so that readings of zero have a logarithm.
        ceiling: Logarithm c of the value up to which fitted values are trusted; None for no end.
    """

    floor: float | None = None
    ceiling: float | None = None

    def forward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Readings (n,) on the scale of the fit; below 0 they count as 0 where it is the logarithm."""
        return values if self.floor is None else np.log(np.maximum(values, 0.0) + self.floor)

    def inverse(self, fitted: Tensor) -> Tensor:
        """Fitted values, any shape, in the assay's unit; gradients flow."""
        if self.floor is None:
            return fitted
        within = fitted if self.ceiling is None else fitted.clamp(max=self.ceiling)
        return torch.exp(within) * (1 + (fitted - within)) - self.floor


def choose_link(scale: Scale, values: NDArray[np.float64]) -> Link:
    """The link of a scale; "auto" takes the logarithm of readings that are never negative and less skewed by it.

    Values that are logarithms already, or that may be negative, stay as they are; under every scale so do values of
    which none is positive, such as the negated readings of a goal that is to be made small.
    """
    positive = values[values > 0]
    if scale == "identity" or len(positive) == 0:
        return Link()
    floor, highest = 0.5 * float(positive.min()), float(positive.max())
    trusted = highest + _REACH * (highest - float(values.min()))
    link = Link(floor, math.log(min(trusted, _LARGEST) + floor))
    if scale == "log":
        return link
    is_product = float(values.min()) >= 0 and abs(skew(link.forward(values))) < abs(skew(values))
    return link if is_product else Link()
