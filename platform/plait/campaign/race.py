"""The race of arms: which ways of proposing designs get the wells of the next round.

Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
2016), started again when it stands still: all arms share the first round; the better half of those that shared it goes
on, until one takes every well; after `patience` rounds without a new best reading all of them share again. An arm is
as good as the mean of the best eighth of its readings in the round: a batch is made for its best designs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from plait.campaign.config import CampaignConfig
from plait.design.space import DesignSpace

POLICY = "policy"
"""The arm that fine-tunes and samples as the configuration says."""
EXHAUSTIVE = "exhaustive"
"""The source of the policy arm's designs that come from ranking a small space whole."""
ON_LONG_SPACES = ("neutral_drift", POLICY)
Readings = Mapping[str, Sequence[float]]
"""A round's readings by arm, higher is better; failed wells are left out."""


def arms_of(config: CampaignConfig, space: DesignSpace) -> tuple[str, ...]:
    """A campaign's arms; where none are named, drift joins the policy on spaces too large to be ranked whole."""
    if config.arms is not None:
        return config.arms
    is_named = "algorithm" in config.finetune.model_fields_set | config.sampler.model_fields_set
    if is_named or config.assays or space.size <= max(config.batch.exhaustive_limit, 1):
        return (POLICY,)
    return ON_LONG_SPACES


def runners(arms: Sequence[str], history: Sequence[Readings], patience: int = 3) -> tuple[str, ...]:
    """The arms that share the next round evenly, in the order of `arms`.

    Args:
        arms: Names of all arms, at least one; where two did equally well, the earlier one goes on.
        history: Readings of the past rounds, oldest first; names that are no arms (any more) do not run.
        patience: Rounds in a row without a new best reading after which all arms share again.
    """
    running, best, num_stale = tuple(arms), -math.inf, 0
    for readings in history:
        highest = max((value for values in readings.values() for value in values), default=-math.inf)
        num_stale = 0 if highest > best else num_stale + 1
        best = max(best, highest)
        ran = [arm for arm in arms if readings.get(arm)]
        if num_stale >= patience or not ran:
            running, num_stale = tuple(arms), 0
        else:
            ahead = sorted(ran, key=lambda arm: -best_eighth(readings[arm]))[: math.ceil(len(ran) / 2)]
            running = tuple(arm for arm in arms if arm in ahead)
    return running


def best_eighth(values: Sequence[float]) -> float:
    """Mean of the highest eighth of the values, rounded up; at least one value."""
    top = sorted(values, reverse=True)[: math.ceil(len(values) / 8)]
    return sum(top) / len(top)


def wells(running: Sequence[str], size: int) -> dict[str, int]:
    """Arm -> wells of a batch of `size`, as even as can be, the first arms getting what is left over; at least one."""
    share, left = divmod(size, len(running))
    return {arm: share + (i < left) for i, arm in enumerate(running) if share + (i < left) > 0}
