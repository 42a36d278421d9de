"""A reward that is somebody else's function: a folding program, a server, any Python callable. Nothing is learnt.

    prediction(x) = sign * score(x) +- rmse,   sign = -1 where lower scores are better

The scorer answers in the assay's unit. Its one number says nothing about its own error, so the prediction has two
members, score - rmse and score + rmse: their standard deviation is the root mean squared error of the scorer against
the offline readings (noise of the readings included), the same everywhere. It moves every conservative value by the
same amount and makes intervals and P(threshold is met) honest. All readings are held out for the calibration, unless
the scorer was made from them elsewhere, which Plait cannot know.

A campaign names its scorer; what the name means comes from the home's own settings, or from `plait.open(scorers=...)`.
A scorer must be a function of the sequence alone: each distinct one is asked for once. It has no gradient, so only
derivative-free methods can use it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import SupportsFloat

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.bundles import load_bundle, save_bundle
from plait.design.errors import (
    BadInputError,
    ConfigError,
    CorruptArtifactError,
    PlaitError,
    RunFailedError,
    UsageError,
)
from plait.design.records import Dataset, Goal
from plait.design.space import DesignSpace
from plait.rewards.base import Prediction
from plait.rewards.calibration import Calibration, calibrate
from plait.rewards.scorers import Remembered, Scorer
from plait.settings.scorers import ScorerName

needs_scorers = True
OPPOSITE = -0.5
"""Rank correlation with the readings below which a scorer is taken to count the other way."""
_FEWEST_ITEMS = 10
_LARGEST = float(np.finfo(np.float32).max)


class Config(BaseModel):
    """Settings of a black-box reward."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: ScorerName = Field("default", description="name of a scorer that this home knows")
    goal: Goal = Field("maximize", description="minimize where lower scores are better")
    batch_size: int = Field(256, ge=1, le=1_000_000, description="sequences per call of the scorer, at most")
    cache_size: int = Field(1_000_000, ge=0, le=100_000_000, description="scores that are remembered, latest used")


@dataclass(eq=False)
class BlackBox:
    """A scorer as a RewardModel.

    Attributes:
        space: The design space.
        unit: The assay's unit, in which the scorer answers.
        scale: Standard deviation of the offline readings, in that unit.
        function: The scorer; asked for the canonical strand in a strand-symmetric space.
        config: Its settings.
        calibration: Its record against the readings, None where there were none (the std is then about 0).
    """

    space: DesignSpace
    unit: str
    scale: float
    function: Scorer
    config: Config = Config()  # noqa: RUF009 frozen
    calibration: Calibration | None = None
    is_differentiable: bool = False
    _known: OrderedDict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._known = self.function.memory if isinstance(self.function, Remembered) else OrderedDict()

    def predict(self, x: Tensor) -> Prediction:
        """Scores +- the calibration's rmse: members (2, n), or (1, n) without a calibration; higher is better.

        Args:
            x: Tokens (n, L) int64.

        Raises:
            UsageError: x is a simplex.
            RunFailedError: The scorer fails, or its answer is not one finite number per sequence.
        """
        return self._prediction(self._values(x), self.calibration)

    def _prediction(self, values: Tensor, calibration: Calibration | None) -> Prediction:
        shifts = values.new_tensor([0.0] if calibration is None else [-calibration.rmse, calibration.rmse])
        return Prediction(values + shifts[:, None], torch.full_like(shifts, 1 / len(shifts)), self.unit)

    def _values(self, x: Tensor) -> Tensor:
        """Scores with the sign turned, (n,) float32."""
        if x.is_floating_point():
            raise UsageError(
                "a black-box reward scores sequences, not a simplex", hint="use a derivative-free method, or tokens"
            )
        sequences = self.space.decode(self.space.canonical(x.cpu().numpy()))
        scores = self._scores(list(dict.fromkeys(sequences)))
        sign = 1.0 if self.config.goal == "maximize" else -1.0
        return torch.tensor([sign * scores[s] for s in sequences], dtype=torch.float32, device=x.device)

    def _scores(self, sequences: list[str]) -> dict[str, float]:
        """The score of distinct sequences; what the scorer answered is kept even if a later batch fails."""
        scores = {s: self._known[s] for s in sequences if s in self._known}
        missing = [s for s in sequences if s not in scores]
        for start in range(0, len(missing), self.config.batch_size):
            batch = missing[start : start + self.config.batch_size]
            answer = dict(zip(batch, self._ask(batch), strict=True))
            scores |= answer
            self._known |= answer
        for sequence in sequences:
            if sequence in self._known:
                self._known.move_to_end(sequence)
        while len(self._known) > self.config.cache_size:
            self._known.popitem(last=False)
        return scores

    def _ask(self, batch: Sequence[str]) -> list[float]:
        """The scorer's answer to a batch, checked."""
        name = self.config.scorer
        try:
            answer: Sequence[SupportsFloat] = list(self.function(batch))
        except PlaitError:
            raise
        except Exception as error:
            raise RunFailedError(
                f"the scorer '{name}' failed on {len(batch)} sequences from {batch[0]} on: "
                f"{type(error).__name__}: {error}"
            ) from error
        if len(answer) != len(batch):
            raise RunFailedError(
                f"the scorer '{name}' gave {len(answer)} scores for {len(batch)} sequences from {batch[0]} on",
                hint="it must give one number per sequence, in their order",
            )
        return [_checked(name, sequence, score) for sequence, score in zip(batch, answer, strict=True)]

    def save(self, directory: Path) -> str:
        """Write a bundle of kind "reward" and return its content hash; it holds the scorer's name, never the scorer."""
        description = {
            "algorithm": "black_box",
            "config": self.config.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "unit": self.unit,
            "scale": self.scale,
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }
        return save_bundle(directory, "reward", description, {})


def _checked(name: str, sequence: str, score: SupportsFloat) -> float:
    """A score as a finite number."""
    try:
        number = math.nan if isinstance(score, str | bytes | bool) else float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _LARGEST:
        raise RunFailedError(
            f"the scorer '{name}' gave {str(score)[:80]!r} for {sequence}: not a finite number",
            hint="give a low score, not NaN or infinity, to sequences that cannot be scored",
        )
    return number


def fit(config: Config, dataset: Dataset, generator: Generator, scorers: Mapping[str, Scorer]) -> BlackBox:
    """The scorer, calibrated against all readings.

    Args:
        config: Settings.
        dataset: Offline items.
        generator: Not used.
        scorers: Scorers by name.

    Raises:
        BadInputError: Fewer than 10 items.
        ConfigError: The scorer is not known here, or its scores fall where the readings rise.
        RunFailedError: The scorer fails.
    """
    if len(dataset) < _FEWEST_ITEMS:
        raise BadInputError(f"{len(dataset)} items are too few to calibrate a scorer, give {_FEWEST_ITEMS} or more")
    scale = float(dataset.values.std()) or 1.0
    reward = BlackBox(dataset.space, dataset.unit, scale, _find(config.scorer, scorers), config)
    values = reward._values(torch.as_tensor(dataset.tokens))
    uncertain = calibrate(reward._prediction(values, None), dataset)
    reward.calibration = calibrate(reward._prediction(values, uncertain), dataset)
    if reward.calibration.spearman < OPPOSITE:
        raise ConfigError(
            f"the scorer '{config.scorer}' counts the other way: its rank correlation with the readings is "
            f"{reward.calibration.spearman:.2f}",
            hint="set goal to minimize where lower scores are better, to maximize where higher ones are",
        )
    return reward


def _find(name: str, scorers: Mapping[str, Scorer]) -> Scorer:
    if name not in scorers:
        known = f"choose one of {', '.join(sorted(scorers))}, or add" if scorers else "add"
        raise ConfigError(
            f"there is no scorer '{name}' here", hint=f"{known} it under scorers in the home's settings.yaml"
        )
    return scorers[name]


def load(directory: Path, scorers: Mapping[str, Scorer]) -> BlackBox:
    """A black-box reward that save() wrote, with the scorer that its name means here.

    Raises:
        CorruptArtifactError: The bundle is damaged or of another kind.
        ConfigError: The scorer is not known here.
    """
    description, _ = load_bundle(directory, "reward")
    try:
        config = Config.model_validate(description["config"])
        space = DesignSpace.model_validate(description["space"])
        unit, scale, record = str(description["unit"]), float(description["scale"]), description["calibration"]
        calibration = None if record is None else Calibration(**record)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifactError(
            f"{directory} holds no usable black-box reward: {error}", hint="fit the reward again"
        ) from error
    return BlackBox(space, unit, scale, _find(config.scorer, scorers), config, calibration)
