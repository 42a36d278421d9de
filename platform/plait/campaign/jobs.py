"""Trainings as picklable jobs: what a worker needs to pre-train a prior or fine-tune a policy, in process or on Ray."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from plait.campaign import catalog
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.priors.base import AverageGradients, DiffusionPrior
from plait.rewards.base import RewardModel, Uncertainty
from plait.rewards.conservatism import ConservativeReward, Kind, Objective

UNCERTAINTY_OF = {"boot": "bootstrap_spread", "bonus": "elliptical"}
"""Conservatism kind -> file in rewards/uncertainty/."""


def make_objective(reward: RewardModel, dataset: Dataset, kind: Kind, scale: float) -> Objective:
    """The conservative objective of a reward that was fitted on `dataset`."""
    uncertainty: Uncertainty | None = None
    if kind != "none":
        uncertainty = catalog.find("rewards.uncertainty", UNCERTAINTY_OF[kind]).fit(dataset, reward, None)
    return ConservativeReward(reward, uncertainty, scale if kind != "none" else 0.0, float(dataset.values.std()) or 1.0)


def share_of(settings: dict[str, Any], config: Any, world_size: int) -> dict[str, Any]:
    """Settings of one of `world_size` workers: the same effective batch, divided."""
    return settings | {"batch_size": math.ceil(config.batch_size / world_size)}


@dataclass(frozen=True)
class PretrainJob:
    """Pre-train a prior of `algorithm` on a corpus, tokens (n, L) int64."""

    algorithm: str
    settings: dict[str, Any]
    space: DesignSpace
    corpus: NDArray[np.int64]
    seed: int

    @property
    def num_steps(self) -> int:
        """Updates at most."""
        return int(catalog.configure("priors", self.algorithm, self.settings).num_pretrain_steps)

    def start(self, rank: int, world_size: int, generator: Generator) -> PretrainRun:
        """The run of one worker; all start from the same weights."""
        algorithm = catalog.find("priors", self.algorithm)
        whole = algorithm.Config.model_validate(self.settings)
        config = algorithm.Config.model_validate(share_of(self.settings, whole, world_size))
        prior = algorithm.init(config, self.space, Generator().manual_seed(self.seed))
        return PretrainRun(algorithm, algorithm.pretrain_init(config, prior, torch.from_numpy(self.corpus), generator))


class PretrainRun:
    """A pre-training under way."""

    def __init__(self, algorithm: Any, state: Any) -> None:
        self._algorithm, self._state = algorithm, state

    def step(self, average_gradients: AverageGradients) -> dict[str, float]:
        """One update."""
        info = self._algorithm.pretrain_step(self._state, average_gradients)
        return {key: float(value) for key, value in asdict(info).items() if key != "step" and math.isfinite(value)}

    def is_done(self) -> bool:
        """Stopped early, equally on all workers."""
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
    """Fine-tune a prior towards a conservative reward; bundles are read from folders that every worker sees."""

    algorithm: str
    settings: dict[str, Any]
    prior_algorithm: str
    prior_path: Path
    reward_algorithm: str
    reward_path: Path
    dataset: Dataset
    kind: Kind
    scale: float

    @property
    def num_steps(self) -> int:
        """Updates."""
        return int(catalog.configure("finetune", self.algorithm, self.settings).num_updates)

    def objective(self) -> Objective:
        """The optimiser's objective."""
        reward = catalog.find("rewards", self.reward_algorithm).load(self.reward_path)
        return make_objective(reward, self.dataset, self.kind, self.scale)

    def prior(self) -> DiffusionPrior:
        """The prior, restricted to the dataset's space."""
        return load_prior(self.prior_algorithm, self.prior_path, self.dataset.space)

    def start(self, rank: int, world_size: int, generator: Generator) -> FinetuneRun:
        """The run of one worker."""
        algorithm = catalog.find("finetune", self.algorithm)
        whole = algorithm.Config.model_validate(self.settings)
        config = algorithm.Config.model_validate(share_of(self.settings, whole, world_size))
        return FinetuneRun(algorithm, algorithm.init(config, self.prior(), self.objective(), self.dataset, generator))


class FinetuneRun:
    """A fine-tuning under way."""

    def __init__(self, algorithm: Any, state: Any) -> None:
        self._algorithm, self._state = algorithm, state

    def step(self, average_gradients: AverageGradients) -> dict[str, float]:
        """One update."""
        return {
            key: float(value) for key, value in asdict(self._algorithm.step(self._state, average_gradients)).items()
        }

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


def load_prior(algorithm: str, path: Path, space: DesignSpace | None = None) -> DiffusionPrior:
    """A prior or policy from its bundle, restricted to `space` where one is given.

    Raises:
        CorruptArtifactError: The bundle cannot be trusted.
        ConfigError: The space does not fit the model.
    """
    prior: DiffusionPrior = catalog.find("priors", algorithm).load(path)
    return prior if space is None or space == prior.space else prior.restrict(space)
