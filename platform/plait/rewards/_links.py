"""The scale on which a reward model is fitted: the readings as they are, or their logarithm where they are products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import skew
from torch import Tensor

Scale = Literal["auto", "identity", "log"]
Values = TypeVar("Values", Tensor, NDArray[np.float64])


@dataclass(frozen=True)
class Link:
    """t = log(y + floor), or t = y where floor is None.

    Attributes:
        floor: In the assay's unit: half the smallest positive reading, so that readings of zero have a logarithm.
    """

    floor: float | None = None

    def forward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Readings (n,) on the scale of the fit; below 0 they count as 0 where it is the logarithm."""
        return values if self.floor is None else np.log(np.maximum(values, 0.0) + self.floor)

    def inverse(self, fitted: Tensor) -> Tensor:
        """Fitted values, any shape, in the assay's unit."""
        return fitted if self.floor is None else torch.exp(fitted) - self.floor


def choose_link(scale: Scale, values: NDArray[np.float64]) -> Link:
    """The link of a scale; "auto" takes the logarithm of readings that are never negative and less skewed by it.

    Values that are logarithms already, or that may be negative, stay as they are.
    """
    positive = values[values > 0]
    if scale == "identity" or len(positive) == 0:
        return Link()
    link = Link(0.5 * float(positive.min()))
    if scale == "log":
        return link
    is_product = float(values.min()) >= 0 and abs(skew(link.forward(values))) < abs(skew(values))
    return link if is_product else Link()
