"""The q designs that together push the front of several assays outwards most, by greedy hypervolume.

Source: greedy (sequential) maximisation of hypervolume improvement: Daulton, Balandat and Bakshy, "Differentiable
Expected Hypervolume Improvement for Parallel Multi-Objective Bayesian Optimization" (NeurIPS 2020), here of
the conservative values instead of an expectation.

    next = argmax over y of HV(F + S + {y}) - HV(F + S)
    F: measured items, `pool.front`;  S: designs chosen so far;  y: a candidate, `pool.values`; up is better

HV is monotone and submodular, so the greedy batch has at least 1 - 1/e of the best batch's gain (min_distance aside),
and a gain computed against a smaller S is an upper bound: only candidates that could still be the next are computed
again (lazy greedy, Minoux 1978), which changes nothing of the result. The reference point is the worst value on the
front of measured items and eligible candidates together, less a tenth of that front's range (at least 0.1).

Where no candidate adds anything more, the batch is filled by Pareto rank among the eligible candidates, then by
conservative value. A pool without values (one assay) is chosen as top_q would: in one dimension the greedy choice is
the best candidate, and after it none adds anything.
Limits: hypervolume prefers the middle of a convex front and depends on the reference point; exact hypervolume becomes
slow beyond about five assays.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from plait.acquisition._choosing import Choice, feasible_first, is_feasible
from plait.acquisition.base import Pool
from plait.metrics.hypervolume import hypervolume_gains, non_dominated, pareto_ranks, reference_point


class Config(BaseModel):
    """Settings of pareto; batch size and distance are the campaign's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_feasibility: float = Field(
        0.5, ge=0, le=1, description="candidates less likely to meet all thresholds come after all others"
    )


def select(
    config: Config, pool: Pool, q: int, min_distance: int, taken: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Greedy choice by hypervolume; equal gains go to the higher conservative value.

    Where the pool says how likely candidates meet the thresholds, those below min_feasibility are chosen only when no
    other is left, the likeliest first: the wells of a plate are there anyway, and measuring teaches the constraint.

    Args:
        config: min_feasibility.
        pool: Candidates; `values` and `front` in standard deviations.
        q: Designs wanted.
        min_distance: Smallest Hamming distance between any two chosen; 1 and below means distinct items.
        taken: (k, L) int64 measured or pending items, never chosen again.
        rng: Not used.

    Returns:
        (<= q,) int64 indices into the pool, in the order of choice; fewer than q where the pool holds no more.
    """
    choice = Choice(pool, min_distance, taken)
    order = np.argsort(-pool.conservative, kind="stable")
    if pool.values is not None:
        eligible = order[(choice.is_free & is_feasible(pool, config.min_feasibility))[order]]
        front = pool.values[:0] if pool.front is None else pool.front
        _choose_lazily(choice, pool.values, front, eligible, q)
        ranks = np.full(len(order), len(order))
        ranks[eligible] = pareto_ranks(pool.values[eligible])
        order = order[np.argsort(ranks[order], kind="stable")]
    return choice.fill(feasible_first(pool, order, config.min_feasibility), q)


def _choose_lazily(
    choice: Choice, values: NDArray[np.float64], front: NDArray[np.float64], eligible: NDArray[np.int64], q: int
) -> None:
    """Choose from eligible (in order of preference among equals) until q are chosen or none adds anything."""
    reference = reference_point(np.concatenate([front, values[eligible]]))
    front = non_dominated(front)
    bounds = hypervolume_gains(values[eligible], front, reference)
    waiting = [(-bound, place, 0) for place, bound in enumerate(bounds.tolist()) if bound > 0]
    heapq.heapify(waiting)
    while waiting and len(choice.chosen) < q:
        _, place, num_seen = heapq.heappop(waiting)
        candidate = int(eligible[place])
        if not choice.is_free[candidate]:
            continue
        if num_seen == len(choice.chosen):
            choice.add(candidate)
            front = non_dominated(np.concatenate([front, values[candidate : candidate + 1]]))
            continue
        gain = float(hypervolume_gains(values[candidate : candidate + 1], front, reference)[0])
        if gain > 0:
            heapq.heappush(waiting, (-gain, place, len(choice.chosen)))
