"""A round about to be computed: what its stages may see (Turn) and what they hand back (Outcome)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Generator

from plait.campaign import catalog
from plait.campaign.config import CampaignConfig
from plait.campaign.fingerprints import derive_seed
from plait.campaign.jobs import load_prior, make_objective
from plait.campaign.ports import Ports
from plait.campaign.records import Campaign, DatasetVersion, Round
from plait.design.records import Dataset, Goal, Readings, to_dataset
from plait.design.space import DesignSpace
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.rewards.splits import judge_split

JUDGE_FRACTION = 1 / 3
"""Share of the items that only the judge sees."""


@dataclass(frozen=True)
class NewModel:
    """A model that a stage made: name suffix, kind, algorithm, artifact and what to show of it."""

    suffix: str
    kind: str
    algorithm: str
    artifact: str
    details: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a stage did: JSON outputs (equal whenever its inputs are equal) and models to register."""

    outputs: dict[str, Any]
    models: tuple[NewModel, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One round about to be computed: records, data and the outputs of the stages before."""

    ports: Ports
    campaign: Campaign
    round: Round
    version: DatasetVersion
    readings: Readings
    taken: tuple[str, ...]
    outputs: Mapping[str, dict[str, Any]]

    @cached_property
    def config(self) -> CampaignConfig:
        """The campaign's configuration."""
        return CampaignConfig.model_validate(self.campaign.config)

    @cached_property
    def space(self) -> DesignSpace:
        """The campaign's design space."""
        return DesignSpace.model_validate(self.campaign.space)

    @property
    def goal(self) -> Goal:
        """Which way is better."""
        return self.config.objective.goal or self.version.goal

    @property
    def sign(self) -> float:
        """What turns the models' direction (higher is better) into the assay's: 1 or -1."""
        return 1.0 if self.goal == "maximize" else -1.0

    @cached_property
    def dataset(self) -> Dataset:
        """The readings inside the space, as models see them."""
        return learnable(self.readings, self.space, self.goal, self.version.unit)

    @cached_property
    def halves(self) -> tuple[Dataset, Dataset]:
        """The optimiser's and the judge's data: disjoint groups of relatives, the same in every round."""
        return judge_split(self.dataset, derive_seed(self.config.seed, 0, "judge"), JUDGE_FRACTION)

    def seed(self, stage: str) -> int:
        """The seed of a stage's generators."""
        return derive_seed(self.config.seed, 0 if stage == "prior" else self.round.number, stage)

    def generator(self, stage: str) -> Generator:
        """The generator of a stage."""
        return Generator().manual_seed(self.seed(stage))

    def path(self, stage: str, key: str) -> Path:
        """The folder of an artifact that an earlier stage made."""
        return self.ports.artifacts.path(self.outputs[stage][key])

    def prior(self) -> DiffusionPrior:
        """The campaign's prior."""
        return load_prior(self.outputs["prior"]["algorithm"], self.path("prior", "prior"), self.space)

    def policy(self) -> DiffusionPrior:
        """The round's policy."""
        return load_prior(self.outputs["prior"]["algorithm"], self.path("finetune", "policy"), self.space)

    def reward(self, which: str) -> Any:
        """The reward ensemble "optimiser", "judge" or "final"."""
        return catalog.find("rewards", self.config.reward.algorithm).load(self.path("fit_reward", which))

    def objective(self, which: str) -> Objective:
        """The conservative objective of "optimiser" (for fine-tuning) or "final" (for ranking)."""
        chosen = self.outputs["sweep"]
        data = self.halves[0] if which == "optimiser" else self.dataset
        return make_objective(self.reward(which), data, chosen["kind"], chosen["scale"])


def learnable(readings: Readings, space: DesignSpace, goal: Goal, unit: str) -> Dataset:
    """The readings that lie inside the template, one row per item."""
    tokens = space.alphabet.encode(readings.sequences)
    rows = np.flatnonzero(space.allowed_mask()[np.arange(space.length), tokens].all(1))
    inside = Readings(
        tuple(readings.sequences[i] for i in rows),
        readings.values[rows],
        tuple(readings.replicates[i] for i in rows),
        None if readings.stds is None else readings.stds[rows],
    )
    return to_dataset(inside, space, goal, unit)
