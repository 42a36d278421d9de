"""Trainings as picklable jobs: what a worker needs to pre-train a prior or fine-tune a policy, in process or on Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from plait.campaign import catalog
from plait.campaign.config import CampaignConfig
from plait.campaign.ports import Artifact, Scorers
from plait.campaign.sections import PLAIN_TRAINING, RewardConfig, Scalarisation, TrainingConfig
from plait.campaign.shares import OnCpu, share_of, weighted
from plait.design.records import Dataset, Goal
from plait.design.space import DesignSpace
from plait.priors.base import AverageGradients, DiffusionPrior
from plait.rewards.base import RewardModel, Uncertainty
from plait.rewards.conservatism import ConservativeReward, Kind, Objective
from plait.rewards.multi_objective import MultiObjective, Part

UNCERTAINTY_OF = {"boot": "bootstrap_spread", "bonus": "elliptical", "rarity": "rarity"}
"""Conservatism kind -> file in rewards/uncertainty/."""


def judge_algorithm(algorithm: str) -> str:
    """The judge's reward model: learned from its own data, even where the optimiser's is a black box."""
    return "mixture" if needs_scorers(algorithm) else algorithm


def needs_scorers(algorithm: str) -> bool:
    """The reward asks a scorer of the user's instead of learning."""
    return bool(getattr(catalog.find("rewards", algorithm), "needs_scorers", False))


def reward_settings(section: RewardConfig, goal: Goal) -> dict[str, Any]:
    """Settings of a reward model: one that is learned has members, a black box counts as its assay does."""
    if needs_scorers(section.algorithm):
        return {"goal": goal, **section.settings}
    return {**section.settings, **with_members(section.algorithm, section.members)}


def with_members(algorithm: str, members: int) -> dict[str, int]:
    """The setting `members` of a reward model that is made of several, {} of one that is not."""
    return {"members": members} if "members" in catalog.find("rewards", algorithm).Config.model_fields else {}


def judge_settings(config: CampaignConfig, section: RewardConfig) -> dict[str, Any]:
    """Settings of the judge; it is asked seldom and only for a second opinion, so it is fitted once where it may be."""
    algorithm = judge_algorithm(section.algorithm)
    return {**with_members(algorithm, section.members), **fitted_once(algorithm), **config.judge.settings}


def fitted_once(algorithm: str) -> dict[str, Any]:
    """The setting that halves the time of a reward model that weighs families on a trial fit, {} of any other."""
    known = catalog.find("rewards", algorithm).Config.model_fields
    return {"is_refitted": False} if "is_refitted" in known else {}


def fit_reward(algorithm: str, settings: dict[str, Any], dataset: Dataset, seed: int, scorers: Scorers) -> RewardModel:
    """A fitted reward model; a black box is only calibrated.

    Raises:
        BadInputError: Too few items.
        ConfigError: Settings out of bounds, or an unknown scorer.
    """
    module, config = catalog.find("rewards", algorithm), catalog.configure("rewards", algorithm, settings)
    generator = Generator().manual_seed(seed)
    more = (scorers,) if needs_scorers(algorithm) else ()
    reward: RewardModel = module.fit(config, dataset, generator, *more)
    return reward


def load_reward(algorithm: str, path: Path, scorers: Scorers) -> RewardModel:
    """A reward model from its bundle.

    Raises:
        CorruptArtifactError: The bundle cannot be trusted.
        ConfigError: A black box whose scorer is not known here.
    """
    more = (scorers,) if needs_scorers(algorithm) else ()
    reward: RewardModel = catalog.find("rewards", algorithm).load(path, *more)
    return reward


@dataclass(frozen=True)
class AssayGoal:
    """What is wanted of one assay.

    Attributes:
        name: Of the assay.
        reward_algorithm: File in rewards/.
        reward: The fitted reward.
        dataset: What it was fitted on.
        weight: Its say among several assays.
        threshold: What a design must reach, in the assay's unit, higher is better; None for no constraint.
        interval_scale: Factor that makes the reward's std honest (Calibration).
    """

    name: str
    reward_algorithm: str
    reward: Artifact
    dataset: Dataset
    weight: float
    threshold: float | None
    interval_scale: float

    def conservative(self, kind: Kind, scale: float, scorers: Scorers) -> ConservativeReward:
        """The assay's own objective."""
        reward = load_reward(self.reward_algorithm, self.reward.path(), scorers)
        uncertainty: Uncertainty | None = None
        if kind != "none":
            uncertainty = catalog.find("rewards.uncertainty", UNCERTAINTY_OF[kind]).fit(self.dataset, reward, None)
        return ConservativeReward(
            reward, uncertainty, scale if kind != "none" else 0.0, float(self.dataset.values.std()) or 1.0
        )


@dataclass(frozen=True)
class ObjectivePlan:
    """An objective as a picklable plan: every worker fetches the bundles it needs."""

    goals: tuple[AssayGoal, ...]
    kind: Kind
    scale: float
    scalarisation: Scalarisation
    feasibility_weight: float
    scorers: Scorers

    @property
    def dataset(self) -> Dataset:
        """The own assay's data."""
        return self.goals[0].dataset

    def build(self) -> Objective:
        """One assay without a threshold stands for itself; otherwise they are joined, in standard deviations."""
        parts = [goal.conservative(self.kind, self.scale, self.scorers) for goal in self.goals]
        if len(self.goals) == 1 and self.goals[0].threshold is None:
            return parts[0]
        joined = tuple(
            Part(goal.name, part, goal.weight, float(goal.dataset.values.mean()), goal.threshold, goal.interval_scale)
            for goal, part in zip(self.goals, parts, strict=True)
        )
        return MultiObjective(joined, self.scalarisation, self.feasibility_weight, readings_by_assay(self.goals))


def readings_by_assay(goals: Sequence[AssayGoal]) -> NDArray[np.float64]:
    """Readings of all items, (m, number of assays) in the assays' units; NaN where an assay did not measure an item."""
    items, which = np.unique(np.concatenate([g.dataset.tokens for g in goals]), axis=0, return_inverse=True)
    readings = np.full((len(items), len(goals)), np.nan)
    starts = np.cumsum([0, *(len(g.dataset) for g in goals)])
    for column, goal in enumerate(goals):
        readings[which.reshape(-1)[starts[column] : starts[column + 1]], column] = goal.dataset.values
    return readings


@dataclass(frozen=True)
class PretrainJob:
    """Pre-train a prior of `algorithm` on a corpus, tokens (n, L) int64."""

    algorithm: str
    settings: dict[str, Any]
    space: DesignSpace
    corpus: NDArray[np.int64]
    seed: int
    training: TrainingConfig = PLAIN_TRAINING

    @property
    def num_steps(self) -> int:
        """Updates at most."""
        return int(catalog.configure("priors", self.algorithm, self.settings).num_pretrain_steps)

    def start(self, rank: int, world_size: int, generator: Generator) -> PretrainRun:
        """The run of one worker; all start from the same weights."""
        algorithm = catalog.find("priors", self.algorithm)
        config, weight = share_of("priors", self.algorithm, self.settings, rank, world_size)
        prior = algorithm.init(config, self.space, Generator().manual_seed(self.seed))
        prior = _placed(prior, self.training, generator)
        state = algorithm.pretrain_init(config, prior, torch.from_numpy(self.corpus), generator)
        return PretrainRun(algorithm, state, weight, self.training.accumulation)


class PretrainRun:
    """A pre-training under way."""

    def __init__(self, algorithm: Any, state: Any, weight: float = 1.0, num_pieces: int = 1) -> None:
        self._algorithm, self._state, self._weight, self._num_pieces = algorithm, state, weight, num_pieces

    def step(self, average_gradients: AverageGradients) -> dict[str, float]:
        """One update."""
        average = weighted(average_gradients, self._weight)
        info = self._algorithm.pretrain_step(self._state, average, self._num_pieces)
        return {key: float(value) for key, value in asdict(info).items() if key != "step" and math.isfinite(value)}

    def is_done(self) -> bool:
        """Stopped early, as this worker sees it."""
        return bool(self._state.is_finished)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return dict(self._state.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on."""
        self._state.load_state_dict(state)

    def save(self, directory: Path) -> None:
        """The best prior by held-out ELBO."""
        self._state.best_prior().save(directory, "prior")


@dataclass(frozen=True)
class FinetuneJob:
    """Fine-tune a prior towards a conservative reward; every worker fetches the bundles it needs."""

    algorithm: str
    settings: dict[str, Any]
    prior_algorithm: str
    pretrained: Artifact
    plan: ObjectivePlan
    previous: Artifact | None = None
    training: TrainingConfig = PLAIN_TRAINING

    @property
    def num_steps(self) -> int:
        """Updates."""
        return int(catalog.configure("finetune", self.algorithm, self.settings).num_updates)

    def prior(self) -> DiffusionPrior:
        """The prior, restricted to the dataset's space."""
        return load_prior(self.prior_algorithm, self.pretrained.path(), self.plan.dataset.space)

    def begin(self, config: Any, generator: Generator) -> Any:
        """The algorithm's state before its first update."""
        module, dataset = catalog.find("finetune", self.algorithm), self.plan.dataset
        more: tuple[DiffusionPrior | None, ...] = ()
        if getattr(module, "continues", False):
            before = self.previous
            policy = None if before is None else load_prior(self.prior_algorithm, before.path(), dataset.space)
            more = (policy and _placed(policy, self.training, generator),)
        prior, objective = _placed(self.prior(), self.training, generator), self.plan.build()
        placed = objective if generator.device.type == "cpu" else OnCpu(objective)
        return module.init(config, prior, placed, dataset, generator, *more)

    def start(self, rank: int, world_size: int, generator: Generator) -> FinetuneRun:
        """The run of one worker."""
        algorithm = catalog.find("finetune", self.algorithm)
        config, weight = share_of("finetune", self.algorithm, self.settings, rank, world_size)
        return FinetuneRun(algorithm, self.begin(config, generator), weight, self.training.accumulation)


class FinetuneRun:
    """A fine-tuning under way."""

    def __init__(self, algorithm: Any, state: Any, weight: float = 1.0, num_pieces: int = 1) -> None:
        self._algorithm, self._state, self._weight, self._num_pieces = algorithm, state, weight, num_pieces

    @property
    def policy(self) -> DiffusionPrior:
        """The policy as it is."""
        policy: DiffusionPrior = self._state.policy
        return policy

    def step(self, average_gradients: AverageGradients) -> dict[str, float]:
        """One update."""
        info = self._algorithm.step(self._state, weighted(average_gradients, self._weight), self._num_pieces)
        return {key: float(value) for key, value in asdict(info).items()}

    def is_done(self) -> bool:
        """Fine-tuning does all its updates."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return dict(self._state.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on."""
        self._state.load_state_dict(state)

    def save(self, directory: Path) -> None:
        """The policy."""
        self._state.policy.save(directory, "policy")


def _placed(prior: DiffusionPrior, training: TrainingConfig, generator: Generator) -> DiffusionPrior:
    """The prior on the generator's device, computing in the precision that is asked for."""
    prior.network.to(generator.device)
    prior.compute_in(training.precision)
    return prior


def item_elbo(prior: DiffusionPrior, tokens: Tensor, generator: Generator, num_draws: int = 32) -> Tensor:
    """Prior ELBO of items (n, L) int64 in nats, (n,): of both strands together where they are one item."""
    bound = prior.elbo(tokens, generator, num_draws)[0]
    if not prior.space.strand_symmetric:
        return bound
    twins = torch.from_numpy(prior.space.alphabet.complement_tokens())[tokens.flip(1)]
    other = prior.elbo(twins, generator, num_draws)[0]
    return torch.where((twins == tokens).all(1), bound, torch.logaddexp(bound, other))


def load_prior(algorithm: str, path: Path, space: DesignSpace | None = None) -> DiffusionPrior:
    """A prior or policy from its bundle, restricted to `space` where one is given.

    Raises:
        CorruptArtifactError: The bundle cannot be trusted.
        ConfigError: The space does not fit the model.
    """
    prior: DiffusionPrior = catalog.find("priors", algorithm).load(path)
    return prior if space is None or space == prior.space else prior.restrict(space)
