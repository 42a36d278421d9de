"""Several assays as one objective: a scalarisation of their standardised values, thresholds as constraints.

Part i of k has the standardised value z_i = (conservative_i - centre_i) / assay_std_i, up is better. Only parts of
positive weight are scalarised; their weights w are scaled to sum 1.

    weighted_sum  S(z) = sum_i w_i z_i
    chebyshev     S(z) = min_i k w_i (z_i - u_i) + rho sum_i w_i z_i
    hypervolume   S(z) = gain(z)^(1/k) + 0.05 chebyshev(z),   gain(z) = HV(F + {z}) - HV(F) above the point r
    conservative  S(z) + feasibility_weight * sum_j log P_j,  P_j = Phi((mean_j - t_j) / (interval_scale_j * std_j))

chebyshev is the augmented weighted Chebyshev (Tchebycheff) function (Miettinen, "Nonlinear Multiobjective
Optimization", 1999, section 3.4; Knowles, "ParEGO", 2006, with its rho = 0.05), turned for maximisation: the published
one minimises max_i w_i |u_i - z_i|, and k w_i makes equal weights mean that all parts rising by one standard deviation
raise S by about one. Its reference u is u_i = 1 + max(2, the best measured z_i): one standard deviation better than
anything measured. S rises in every z_i everywhere, also beyond u; below u every point of the front (whose trade-offs
are not steeper than about 1 / rho) is the best for some weights, while a weighted sum finds only those on the front's
convex hull.

hypervolume has F = the front of the items measured in all parts and r = the worst value on F in each part, less a tenth
of F's range (at least 0.1); with no such items r = 0, the mean reading. The k-th root makes it a length in standard
deviations and keeps the order; the Chebyshev term, the only one that knows weights, orders the designs that add
nothing. It has no gradient.

A value's mean is S at the parts' means, and its std is how far S falls where every part falls by one standard deviation
at once, S(mean) - S(mean - std): the errors of the parts are taken as fully correlated, the cautious reading (for a
weighted sum it is sum_i w_i std_i, which no correlation exceeds). Neither holds the constraint's term: a threshold is
judged by the models' spread, not by the uncertainty that conservatism subtracts. Thresholds are taken as independent
given x, which is pessimistic where the assays go together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.design.errors import ConfigError
from plait.metrics.hypervolume import hypervolume_gains, non_dominated, reference_point
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward, ObjectiveValue, require_yardstick

Scalarisation = Literal["weighted_sum", "chebyshev", "hypervolume"]
RHO = 0.05
"""Weight of the sum that keeps weakly dominated points from being optimal (Knowles 2006)."""
DOMINATED = 0.05
"""Weight of the Chebyshev term in hypervolume."""
BEST_UNSEEN = 2.0
"""Standardised value that the best reading is taken to reach where nothing better was measured."""
_LEAST_STD = 1e-6


@dataclass(frozen=True)
class Part:
    """One assay of several.

    Attributes:
        name: Of the assay.
        objective: Its conservative reward; higher is better.
        weight: Its say, at least 0; 0 keeps only the threshold.
        centre: Mean of the offline readings, assay's unit.
        threshold: What a design must reach, assay's unit, in the models' direction; None for no constraint.
        interval_scale: Factor that makes the reward's std honest (Calibration.interval_scale).

    Raises:
        ConfigError: A number is out of its bounds, or the readings do not vary.
    """

    name: str
    objective: ConservativeReward
    weight: float
    centre: float
    threshold: float | None = None
    interval_scale: float = 1.0

    def __post_init__(self) -> None:
        bounds = {"weight": self.weight >= 0, "interval_scale": self.interval_scale >= 0}
        for name, is_in_bounds in ({"centre": True, "threshold": True} | bounds).items():
            value = getattr(self, name)
            if value is not None and not (is_in_bounds and math.isfinite(value)):
                least = ", at least 0" if name in bounds else ""
                raise ConfigError(f"{name} of assay '{self.name}' is {value}", hint=f"give a finite number{least}")
        require_yardstick(self.objective)

    def standardised(self, value: ObjectiveValue) -> ObjectiveValue:
        """In standard deviations from the mean reading."""
        unit = self.objective.assay_std
        return ObjectiveValue(
            (value.conservative - self.centre) / unit, (value.mean - self.centre) / unit, value.std / unit
        )

    def log_feasibility(self, prediction: Prediction) -> Tensor:
        """Log P(threshold is met), (n,), 0 without a threshold; in double, or its gradient is noise where P is tiny."""
        if self.threshold is None:
            return torch.zeros_like(prediction.mean)
        std = (self.interval_scale * prediction.std).clamp_min(_LEAST_STD * self.objective.assay_std)
        distance = (prediction.mean - self.threshold) / std
        log_p: Tensor = torch.special.log_ndtr(distance.double())
        return log_p.to(distance.dtype)


@dataclass(frozen=True, eq=False)
class MultiObjective:
    """Several assays as one Objective, in standard deviations; the formulas stand at the top of the file.

    Attributes:
        parts: The assays.
        scalarisation: How their values become one.
        feasibility_weight: Standard deviations per nat of log P(feasible).
        measured: (m, number of parts) float64 readings in the assays' units, higher is better, one column per part;
            NaN where an item was not measured in that assay. None for none.

    Raises:
        ConfigError: No parts, two of one name or of different spaces, no positive weight, cautious and optimistic
            parts together, a bad feasibility_weight, or measured of another shape.
    """

    parts: tuple[Part, ...]
    scalarisation: Scalarisation = "chebyshev"
    feasibility_weight: float = 1.0
    measured: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        spaces = {(p.objective.reward.space.alphabet.letters, p.objective.reward.space.length) for p in self.parts}
        if len({part.name for part in self.parts}) < len(self.parts) or len(spaces) > 1:
            raise ConfigError("assays that are joined need different names and one design space")
        if not self._weighted:
            raise ConfigError("no assay has a positive weight", hint="give at least one assay a weight above 0")
        scales = [part.objective.scale for part in self._weighted]
        if min(scales) < 0 < max(scales):
            raise ConfigError(f"conservatism scales {scales} mix caution and optimism", hint="give all one sign")
        if not (math.isfinite(self.feasibility_weight) and self.feasibility_weight >= 0):
            raise ConfigError(
                f"feasibility_weight is {self.feasibility_weight}", hint="give a finite number, at least 0"
            )
        if self.measured is not None and self.measured.shape[1:] != (len(self.parts),):
            raise ConfigError(f"measured has shape {self.measured.shape}, but there are {len(self.parts)} assays")

    @cached_property
    def _weighted(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.weight > 0)

    @property
    def scale(self) -> float:
        """Standard deviations subtracted: the parts' own, or their mean by weight where they differ."""
        total = math.fsum(part.weight for part in self._weighted)
        return math.fsum(part.weight * part.objective.scale for part in self._weighted) / total

    @property
    def assay_std(self) -> float:
        """1: values are in standard deviations already."""
        return 1.0

    @property
    def has_uncertainty(self) -> bool:
        """All scalarised parts have."""
        return all(part.objective.has_uncertainty for part in self._weighted)

    @property
    def is_differentiable(self) -> bool:
        """All parts and the scalarisation are."""
        return self.scalarisation != "hypervolume" and all(part.objective.is_differentiable for part in self.parts)

    @cached_property
    def ideal(self) -> NDArray[np.float64]:
        """(k,) the reference u of the Chebyshev function, in standard deviations."""
        known = np.nan_to_num(self._readings, nan=-np.inf)
        return np.asarray(1.0 + known.max(0, initial=BEST_UNSEEN))

    @cached_property
    def front(self) -> NDArray[np.float64]:
        """(m, k) the front of the items measured in all scalarised parts, in standard deviations; m may be 0."""
        return non_dominated(self._readings[np.isfinite(self._readings).all(1)])

    @cached_property
    def _readings(self) -> NDArray[np.float64]:
        """(m, k) standardised readings, a column per scalarised part."""
        columns = [i for i, part in enumerate(self.parts) if part.weight > 0]
        measured = np.zeros((0, len(self.parts))) if self.measured is None else self.measured
        centre = np.array([part.centre for part in self._weighted])
        unit = np.array([part.objective.assay_std for part in self._weighted])
        return np.asarray((measured[:, columns] - centre) / unit)

    def __call__(self, x: Tensor) -> ObjectiveValue:
        """The scalarised value of tokens (n, L) int64 or, where differentiable, a simplex (n, L, V)."""
        predictions = [part.objective.reward.predict(x) for part in self.parts]
        value = self._standardised(x, predictions)
        log_feasibility = torch.stack(
            [part.log_feasibility(said) for part, said in zip(self.parts, predictions, strict=True)]
        ).sum(0)
        conservative = self._scalarised(value.conservative) + self.feasibility_weight * log_feasibility
        mean = self._scalarised(value.mean)
        return ObjectiveValue(conservative, mean, mean - self._scalarised(value.mean - value.std))

    def values(self, x: Tensor) -> Tensor:
        """(n, k) standardised conservative values of the k scalarised parts, in their order."""
        return self._standardised(x, [part.objective.reward.predict(x) for part in self.parts]).conservative

    def feasibility(self, x: Tensor) -> Tensor:
        """P(all thresholds are met), (n,): the parts' product, as if they were independent given x."""
        return torch.stack([part.log_feasibility(part.objective.reward.predict(x)) for part in self.parts]).sum(0).exp()

    def _standardised(self, x: Tensor, predictions: list[Prediction]) -> ObjectiveValue:
        """Each attribute (n, k), over the scalarised parts."""
        views = [
            part.standardised(part.objective.value_of(x, said))
            for part, said in zip(self.parts, predictions, strict=True)
            if part.weight > 0
        ]
        return ObjectiveValue(
            torch.stack([view.conservative for view in views], -1),
            torch.stack([view.mean for view in views], -1),
            torch.stack([view.std for view in views], -1),
        )

    def _scalarised(self, z: Tensor) -> Tensor:
        """S of z (n, k), (n,)."""
        weights = z.new_tensor([part.weight for part in self._weighted])
        weights = weights / weights.sum()
        total = z @ weights
        if self.scalarisation == "weighted_sum":
            return total
        ideal = torch.as_tensor(self.ideal, dtype=z.dtype, device=z.device)
        chebyshev = (len(weights) * weights * (z - ideal)).amin(-1) + RHO * total
        if self.scalarisation == "chebyshev":
            return chebyshev
        points = z.detach().cpu().double().numpy()
        gains = hypervolume_gains(points, self.front, reference_point(self.front)) ** (1 / len(weights))
        return torch.as_tensor(gains, dtype=z.dtype, device=z.device) + DOMINATED * chebyshev.detach()
