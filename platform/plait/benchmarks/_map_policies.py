"""Optimal policies in closed form, where every design can be listed, and what they are worth.

Of all laws p over items, E_p[value] - kl_weight KL(p || prior) is largest for

    p(x) = prior(x) exp(value(x) / kl_weight) / Z,    value = mean - scale * std

so what STRL (kl_weight 0: the best item alone), DRAKES (scale 0) and BRAID aim at is known without any fine-tuning, and
what differs between them is the objective, not the luck of a run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.design.records import Dataset

Floats = NDArray[np.float64]

BATCH = 96
KL_WEIGHTS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Standard deviations of the offline readings per nat."""
FEWEST_UNIQUE = 0.5
"""Expected share of distinct designs among BATCH draws below which a policy counts as collapsed."""
NUM_BISECTIONS = 20


@dataclass(frozen=True)
class Landscape:
    """N items that all are known of.

    Attributes:
        tokens: (N, L) int64.
        truth: (N,) in gains: 0 is the mean offline item, 1 the mean of the BATCH best of all.
        log_prior: (N,) nats, normalised.
        is_new: (N,) bool, not measured offline.
        is_supported: (N,) bool, passes the support gate.
        is_top: (N,) bool, the true best 1 %.
        shift: What a reading of 0 gains is, in the assay's unit.
        unit: What a gain of 1 is, in the assay's unit.
        std: Standard deviation of the offline readings, in gains.
    """

    tokens: NDArray[np.int64]
    truth: Floats
    log_prior: Floats
    is_new: NDArray[np.bool_]
    is_supported: NDArray[np.bool_]
    is_top: NDArray[np.bool_]
    shift: float
    unit: float
    std: float

    def gains(self, values: Floats) -> Floats:
        """Values in the assay's unit as gains."""
        return (values - self.shift) / self.unit


@dataclass(frozen=True)
class PolicyRow:
    """An optimal policy. Gains: 0 is the mean offline item, 1 the mean of the best batch there is.

    Attributes:
        uncertainty: What is subtracted, or "none".
        scale: How many of it.
        kl_weight: Standard deviations of the offline readings per nat; 0 is no leash.
        is_gated: Items that the support gate rejects are left out.
        kl: KL(p || prior), nats.
        proxy: Expected prediction (the plain mean), gains.
        truth: Expected truth, gains.
        unique: Expected share of distinct designs among BATCH draws.
        top: Share of the policy in the true best 1 %.
    """

    uncertainty: str
    scale: float
    kl_weight: float
    is_gated: bool
    kl: float
    proxy: float
    truth: float
    unique: float
    top: float


@dataclass(frozen=True)
class BatchRow:
    """The BATCH new items of the highest value, gate on. Proxy, truth and top as in PolicyRow."""

    uncertainty: str
    scale: float
    proxy: float
    truth: float
    top: float


def letters_law(dataset: Dataset, corpus: NDArray[np.int64] | None, tokens: NDArray[np.int64]) -> Floats:
    """Log-probability of items (N, L), normalised: independent letters, as frequent as in the corpus (or offline)."""
    seen = dataset.tokens if corpus is None else corpus
    size, length = dataset.space.alphabet.size, dataset.space.length
    counts = np.stack([np.bincount(column, minlength=size) for column in seen.T]) + 0.5
    if dataset.space.strand_symmetric:
        twin = dataset.space.alphabet.complement_tokens()
        counts = counts + counts[::-1][:, twin]
    log_law = np.log(counts / counts.sum(1, keepdims=True))
    total: Floats = log_law[np.arange(length), tokens].sum(1)
    return np.asarray(total - np.logaddexp.reduce(total))


def optimal_policy(value: Floats, log_prior: Floats, kl_weight: float, is_allowed: NDArray[np.bool_]) -> Floats:
    """The optimum (N,) over the allowed items; value and kl_weight in one unit; a kl_weight of 0 takes the best."""
    if kl_weight == 0:
        policy = np.zeros(len(value))
        policy[np.where(is_allowed, value, -np.inf).argmax()] = 1.0
        return policy
    logits = np.where(is_allowed, value / kl_weight + log_prior, -np.inf)
    policy = np.exp(logits - logits.max())
    return np.asarray(policy / policy.sum())


def policy_row(
    land: Landscape, name: str, scale: float, mean: Floats, std: Floats, kl_weight: float, is_gated: bool
) -> PolicyRow:
    """What the optimum is worth; mean and std (N,) in gains."""
    allowed = land.is_supported if is_gated else np.ones(len(mean), dtype=bool)
    policy = optimal_policy(mean - scale * std, land.log_prior, kl_weight * land.std, allowed)
    drawn = policy > 0
    kl = float(policy[drawn] @ (np.log(policy[drawn]) - land.log_prior[drawn]))
    unique = float(-np.expm1(BATCH * np.log1p(-np.minimum(policy, 1 - 1e-12))).sum() / BATCH)
    worth = (float(policy @ mean), float(policy @ land.truth), unique, float(policy[land.is_top].sum()))
    return PolicyRow(name, scale, kl_weight, is_gated, kl, *worth)


def batch_row(land: Landscape, name: str, scale: float, mean: Floats, std: Floats) -> BatchRow:
    """The best new batch by the conservative value; mean and std (N,) in gains."""
    value = np.where(land.is_new & land.is_supported, mean - scale * std, -np.inf)
    best = np.argsort(-value, kind="stable")[:BATCH]
    worth = (float(mean[best].mean()), float(land.truth[best].mean()), float(land.is_top[best].mean()))
    return BatchRow(name, scale, *worth)


def loosest_row(land: Landscape, name: str, scale: float, mean: Floats, std: Floats) -> PolicyRow:
    """The policy of the loosest leash that keeps FEWEST_UNIQUE of BATCH draws distinct, gate on; mean and std in gains.

    The leash is found by bisection, so that settings are compared at the same diversity.
    """
    low, high = 1e-4, 1e2
    for _ in range(NUM_BISECTIONS):
        middle = math.sqrt(low * high)
        if policy_row(land, name, scale, mean, std, middle, True).unique >= FEWEST_UNIQUE:
            high = middle
        else:
            low = middle
    return policy_row(land, name, scale, mean, std, high, True)
