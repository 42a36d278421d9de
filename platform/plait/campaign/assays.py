"""One assay of a campaign in a round: its data as models see them, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from plait.campaign.config import CampaignConfig
from plait.campaign.records import DatasetVersion
from plait.campaign.sections import AssayConfig, RewardConfig
from plait.design.records import Dataset, Goal, Readings, to_dataset
from plait.design.space import DesignSpace
from plait.rewards.splits import judge_split

JUDGE_FRACTION = 1 / 3
"""Share of the items that only the judge sees."""


@dataclass(frozen=True)
class Assay:
    """An assay.

    Attributes:
        version: The dataset version that the round learns from.
        readings: Its rows.
        space: The campaign's design space.
        goal: Which way is better.
        weight: Its say among several assays; 0 keeps only the threshold.
        threshold: What a design must reach, in the assay's unit and direction, or None.
        section: Its reward model.
        split_seed: Of the split between optimiser and judge.
    """

    version: DatasetVersion
    readings: Readings
    space: DesignSpace
    goal: Goal
    weight: float
    threshold: float | None
    section: RewardConfig
    split_seed: int

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.version.dataset

    @property
    def sign(self) -> float:
        """What turns the models' direction (higher is better) into the assay's: 1 or -1."""
        return 1.0 if self.goal == "maximize" else -1.0

    @cached_property
    def dataset(self) -> Dataset:
        """The readings inside the space, one row per item, higher is better."""
        return learnable(self.readings, self.space, self.goal, self.version.unit)

    @cached_property
    def halves(self) -> tuple[Dataset, Dataset]:
        """The optimiser's and the judge's data: disjoint groups of relatives, the same in every round."""
        return judge_split(self.dataset, self.split_seed, JUDGE_FRACTION)


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


def of_campaign(
    config: CampaignConfig, space: DesignSpace, split_seed: int, data: list[tuple[DatasetVersion, Readings]]
) -> tuple[Assay, ...]:
    """The campaign's assays, its own dataset first, with the versions and readings of one round in that order."""
    own = config.objective
    first = AssayConfig(dataset=config.dataset, goal=own.goal, weight=own.weight, threshold=own.threshold)
    return tuple(
        Assay(
            version,
            readings,
            space,
            section.goal or version.goal,
            section.weight,
            section.threshold,
            section.reward or config.reward,
            split_seed,
        )
        for section, (version, readings) in zip((first, *config.assays), data, strict=True)
    )
