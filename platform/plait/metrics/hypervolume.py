"""Pareto fronts of values (n, k), higher is better in every column: ranks and hypervolume, computed by moocore.

The hypervolume of a set is the volume that its points dominate above a reference point r,
HV(F) = vol(union over f in F of the box [r, f]); the gain of a point y is HV(F + {y}) - HV(F).
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
MARGIN = 0.1
"""How far below the front the reference point lies: share of the front's range, and least distance."""
_ROUNDING = 1e-12


def non_dominated(points: Points) -> Points:
    """The points (n, k) that no other is at least as good as, each once."""
    if len(points) == 0:
        return points
    return np.asarray(points[moocore.is_nondominated(points, maximise=True)])


def pareto_ranks(points: Points) -> NDArray[np.int64]:
    """(n,) int64: 0 for the front of points (n, k), 1 for the front of the others, and so on."""
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(points, maximise=True), dtype=np.int64)


def reference_point(points: Points) -> Points:
    """The worst value on the front of points (n, k) in each column, less a tenth of the front's range there, (k,).

    At least 0.1 below, so that the ends of a front count even where it is a single point; zeros for no points.
    """
    if len(points) == 0:
        return np.zeros(points.shape[1])
    front = non_dominated(points)
    worst = front.min(0)
    return np.asarray(worst - np.maximum(MARGIN * (front.max(0) - worst), MARGIN))


def hypervolume_gains(points: Points, front: Points, reference: Points) -> Points:
    """What each point alone adds to the hypervolume of a front, (n,) float64; 0 where it is dominated.

    gain(y) = vol[r, y] - HV({min(f, y) : f in F}): what the box of y holds less what the front already holds of it.

    Args:
        points: (n, k) values.
        front: (m, k) values, m may be 0; dominated ones do no harm.
        reference: (k,) the point r; nothing below it in any column counts.
    """
    gains = np.zeros(len(points))
    front = front[(front > reference).all(1)]
    is_open = (points > reference).all(1)
    for member in front:
        is_open &= ~(member >= points).all(1)
    for i in np.flatnonzero(is_open):
        box = float(np.prod(points[i] - reference))
        held = moocore.hypervolume(np.minimum(front, points[i]), ref=reference, maximise=True) if len(front) else 0.0
        gains[i] = box - held if box - held > _ROUNDING * box else 0.0
    return gains
