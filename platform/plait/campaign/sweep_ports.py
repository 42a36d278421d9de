"""What travels between a sweep and the executor that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from plait.campaign.ports import TrainingJob

OUTCOME = "outcome.json"
"""File in what a finished trial saves: {"looks", "artifact", "is_stopped"}, as in TrialOutcome."""


@dataclass(frozen=True)
class Axis:
    """A number that a sweep varies from low to high, both included."""

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Attributes:
        number: From 0.
        values: By axis.
        cutoffs: (update, score) pairs: a trial that scores less after this update ends there.
    """

    number: int
    values: dict[str, float]
    cutoffs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TrialOutcome:
    """What became of a trial.

    Attributes:
        looks: JSON records in order, each with update, score (higher is better) and shortfall (0 where it meets every
            floor, else by how much it misses them); empty where it failed.
        artifact: Of what was trained, "" where it failed.
        is_stopped: It ended before its time, below a cutoff.
        error: Why it failed, "" where it did not.
        curves: Name -> [(update, value), ...].
    """

    trial: Trial
    looks: tuple[dict[str, Any], ...] = ()
    artifact: str = ""
    is_stopped: bool = False
    error: str = ""
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


class SweepPlan(Protocol):
    """A sweep as a picklable plan."""

    @property
    def axes(self) -> Mapping[str, Axis]:
        """What is varied."""
        ...

    @property
    def num_trials(self) -> int:
        """Trials in all."""
        ...

    @property
    def generation(self) -> int:
        """Trials proposed together, from what all generations before them showed."""
        ...

    @property
    def reduction(self) -> int:
        """Of the trials judged at a look, the best one in this many must be reached to go on from it."""
        ...

    @property
    def max_concurrent(self) -> int | None:
        """Trials at a time, None for as many as there is room for."""
        ...

    @property
    def seed(self) -> int:
        """Of the proposals."""
        ...

    def seed_of(self, trial: Trial) -> int:
        """Of a trial's training."""
        ...

    def start(self, trial: Trial) -> TrainingJob:
        """The trial's training, which looks at itself now and then and saves an OUTCOME."""
        ...
