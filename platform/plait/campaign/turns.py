"""A round about to be computed: what its stages may see (Turn) and what they hand back (Outcome)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Generator

from plait.campaign import race
from plait.campaign.assays import Assay
from plait.campaign.config import CampaignConfig
from plait.campaign.fingerprints import derive_seed
from plait.campaign.jobs import AssayGoal, ObjectivePlan, judge_algorithm, load_prior, load_reward
from plait.campaign.ports import Artifact, Ports
from plait.campaign.records import Campaign, DatasetVersion, Round
from plait.design.records import Dataset, Goal
from plait.design.space import DesignSpace
from plait.priors.base import DiffusionPrior
from plait.rewards.base import RewardModel
from plait.rewards.conservatism import Kind, Objective


@dataclass(frozen=True)
class NewModel:
    """A model that a stage made: name suffix, kind, algorithm, artifact and what to show of it.

    version is the dataset version it was made from, the campaign's own by default.
    """

    suffix: str
    kind: str
    algorithm: str
    artifact: str
    details: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    version: DatasetVersion | None = None


@dataclass(frozen=True)
class NewRun:
    """A run without a model that MLflow is to be told of: name suffix, parameters and curves."""

    suffix: str
    params: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Outcome:
    """What a stage did: JSON outputs (equal whenever its inputs are equal), models to register, runs to tell of."""

    outputs: dict[str, Any]
    models: tuple[NewModel, ...] = ()
    runs: tuple[NewRun, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One round about to be computed: records, data and the outputs of the stages before.

    Attributes:
        assays: The campaign's own assay first, then the further ones.
        previous_policy: Artifact of the policy of the round before, or None.
        history: Own readings of each past round's designs by the arm that proposed them, higher is better.
    """

    ports: Ports
    campaign: Campaign
    round: Round
    assays: tuple[Assay, ...]
    taken: tuple[str, ...]
    outputs: Mapping[str, dict[str, Any]]
    previous_policy: str | None = None
    history: tuple[race.Readings, ...] = ()

    @cached_property
    def config(self) -> CampaignConfig:
        """The campaign's configuration."""
        return CampaignConfig.model_validate(self.campaign.config)

    @cached_property
    def running(self) -> dict[str, int]:
        """The arms that propose this round, with their share of the wells."""
        return race.wells(race.runners(race.arms_of(self.config, self.space), self.history), self.config.batch.size)

    @property
    def own(self) -> Assay:
        """The campaign's own assay."""
        return self.assays[0]

    @property
    def space(self) -> DesignSpace:
        """The campaign's design space."""
        return self.own.space

    @property
    def version(self) -> DatasetVersion:
        """The version of the campaign's own dataset."""
        return self.own.version

    @property
    def goal(self) -> Goal:
        """Which way is better in the campaign's own assay."""
        return self.own.goal

    @property
    def sign(self) -> float:
        """What turns the models' direction (higher is better) into the own assay's: 1 or -1."""
        return self.own.sign

    @property
    def dataset(self) -> Dataset:
        """The own readings inside the space, as models see them."""
        return self.own.dataset

    def seed(self, stage: str) -> int:
        """The seed of a stage's generators."""
        return derive_seed(self.config.seed, 0 if stage == "prior" else self.round.number, stage)

    def generator(self, stage: str) -> Generator:
        """The generator of a stage."""
        return Generator().manual_seed(self.seed(stage))

    def artifact(self, sha256: str) -> Artifact:
        """A kept bundle, as jobs carry it."""
        return Artifact(self.ports.artifacts, sha256)

    def path(self, stage: str, key: str) -> Path:
        """The folder of an artifact that an earlier stage made."""
        return self.artifact(self.outputs[stage][key]).path()

    def prior(self) -> DiffusionPrior:
        """The campaign's prior."""
        return load_prior(self.outputs["prior"]["algorithm"], self.path("prior", "prior"), self.space)

    def policy(self) -> DiffusionPrior:
        """The round's policy."""
        return load_prior(self.outputs["prior"]["algorithm"], self.path("finetune", "policy"), self.space)

    def fits(self, assay: Assay) -> dict[str, Any]:
        """What fit_reward made for an assay: artifacts by role, calibrations."""
        outputs = self.outputs["fit_reward"]
        return outputs if assay is self.own else dict(outputs["further"][assay.name])

    def reward(self, which: str, assay: Assay | None = None) -> RewardModel:
        """The reward model "optimiser", "judge" or "final" of an assay, the own one by default."""
        assay = assay or self.own
        algorithm = judge_algorithm(assay.section.algorithm) if which == "judge" else assay.section.algorithm
        return load_reward(algorithm, self.ports.artifacts.path(self.fits(assay)[which]), self.ports.scorers)

    def plan(self, which: str, kind: Kind, scale: float) -> ObjectivePlan:
        """The objective of "optimiser" (for fine-tuning) or "final" (for ranking), with any conservatism."""
        objective = self.config.objective
        goals = tuple(
            AssayGoal(
                name=assay.name,
                reward_algorithm=assay.section.algorithm,
                reward=self.artifact(self.fits(assay)[which]),
                dataset=assay.halves[0] if which == "optimiser" else assay.dataset,
                weight=assay.weight,
                threshold=None if assay.threshold is None else assay.sign * assay.threshold,
                interval_scale=float(self.fits(assay)["calibration"]["interval_scale"]),
            )
            for assay in self.assays
        )
        return ObjectivePlan(
            goals, kind, scale, objective.scalarisation, objective.feasibility_weight, self.ports.scorers
        )

    def objective(self, which: str) -> Objective:
        """The round's objective: of "optimiser" or "final"."""
        chosen = self.outputs["sweep"]
        return self.plan(which, chosen["kind"], chosen["scale"]).build()
