"""Methods of `plait benchmark`: what each changes in a campaign that otherwise stands as it comes.

A method goes by its file's name: a fine-tuner draws the designs from its policy, a sampler steers the prior by itself,
a reward model ranks the whole space. Only those that are there when the benchmark runs take part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plait.campaign import catalog
from plait.campaign.config import CampaignConfig
from plait.campaign.jobs import judge_algorithm, needs_scorers
from plait.campaign.sections import RewardConfig
from plait.design.errors import NotFoundError
from plait.design.space import DesignSpace

Overrides = dict[str, Any]

DEFAULT, EXHAUSTIVE = "default", "exhaustive"

MOST_RANKED = 2_000_000
"""Spaces up to this size are ranked whole by the methods that do so."""

SUITE_METHODS: dict[str, tuple[str, ...]] = {
    "real": (DEFAULT, EXHAUSTIVE, "ensemble", "gaussian_process", "braid", "strl", "genetic"),
    "ehrlich": (DEFAULT, "genetic", "neutral_drift", "braid"),
}
"""Suite -> its methods where none are named; every method elsewhere."""

NUM_SEEDS: dict[str, int] = {"small": 1}
"""Suite -> seeds where none are asked for; three elsewhere."""

SMALL: Overrides = {"rounds": 1, "reward": {"members": 2}, "batch": {"num_candidates": 500}}
SMALL_SETTINGS: Overrides = {
    "num_pretrain_steps": 300,
    "num_updates": 30,
    "num_train_steps": 200,
    "num_value_updates": 200,
    "num_rollouts": 256,
    "steps": 100,
}
"""What the small suite cuts in every algorithm that has the setting: whether a method works is seen, not how well."""


def list_methods() -> list[str]:
    """Every method there is: the default, fine-tuners, samplers, and reward models that rank the whole space."""
    return [DEFAULT, *_finetuners(), *catalog.algorithms("samplers"), *_rankers()]


def methods_of(suite: str) -> list[str]:
    """The methods of a suite where none are named, as far as they are there."""
    known = list_methods()
    return [name for name in SUITE_METHODS.get(suite, known) if name in known]


def is_possible(method: str, space: DesignSpace) -> bool:
    """Whether a method can work on a space: ranking it whole needs one that is small enough."""
    return space.size <= MOST_RANKED or method not in (EXHAUSTIVE, *_rankers())


def overrides_of(method: str) -> Overrides:
    """What a method changes in the configuration of a campaign.

    Raises:
        NotFoundError: There is no such method; the hint lists those there are.
    """
    if method == DEFAULT:
        return {}
    proposes_alone: Overrides = {"batch": {"exhaustive_limit": 0}}
    if method in _finetuners():
        return {"finetune": {"algorithm": method}, "sampler": {"algorithm": "ancestral"}, **proposes_alone}
    if method in catalog.algorithms("samplers"):
        return {"finetune": {"algorithm": "none"}, "sampler": {"algorithm": method}, **proposes_alone}
    if method in _rankers():
        return merge(overrides_of(EXHAUSTIVE), {"reward": {"algorithm": method}})
    raise NotFoundError(f"there is no method '{method}'", hint=f"there are: {', '.join(list_methods())}")


def small_cuts(config: CampaignConfig) -> Overrides:
    """What the small suite saves on in a campaign."""
    sections = {
        "prior": ("priors", config.prior.algorithm),
        "reward": ("rewards", config.reward.algorithm),
        "judge": ("rewards", judge_algorithm(config.reward.algorithm)),
        "finetune": ("finetune", config.finetuner),
        "sampler": ("samplers", config.sampler.algorithm),
    }
    settings: Overrides = {}
    for section, (room, name) in sections.items():
        if name != "none":
            known = catalog.find(room, name).Config.model_fields
            settings[section] = {"settings": {key: value for key, value in SMALL_SETTINGS.items() if key in known}}
    return merge(settings, SMALL)


def merge(*documents: Mapping[str, Any]) -> Overrides:
    """One configuration of several: sections are merged key by key, the later document wins."""
    merged: Overrides = {}
    for document in documents:
        for key, value in document.items():
            mine = merged.get(key)
            merged[key] = merge(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged


def _finetuners() -> list[str]:
    return list(catalog.algorithms("finetune"))


def _rankers() -> list[str]:
    """Reward models that are learned, the default one left out: `exhaustive` ranks by it."""
    default = RewardConfig().algorithm
    return [name for name in catalog.algorithms("rewards") if name != default and not needs_scorers(name)]
