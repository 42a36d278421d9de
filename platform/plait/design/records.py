"""What moves between rooms: readings as they were measured, and datasets as models see them."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plait.design.space import DesignSpace

Goal = Literal["maximize", "minimize"]
Progress = Callable[[str, int, int, str], None]
"""progress(task, done, total, message): long work says how far it is."""


def no_progress(task: str, done: int, total: int, message: str) -> None:
    """The silent Progress."""


@dataclass(frozen=True)
class Readings:
    """Assay readings, one row per (sequence, replicate), in the assay's unit and direction.

    Attributes:
        sequences: n sequences of one length.
        values: (n,) float64, finite.
        replicates: n replicate labels ("1" where the file names none).
        stds: (n,) float64 standard deviation of each reading, or None.
        batches: n batch labels, or None.
    """

    sequences: tuple[str, ...]
    values: NDArray[np.float64]
    replicates: tuple[str, ...]
    stds: NDArray[np.float64] | None = None
    batches: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        columns: tuple[Sized | None, ...] = (self.values, self.replicates, self.stds, self.batches)
        if any(column is not None and len(column) != len(self.sequences) for column in columns):
            raise ValueError("readings need one value, replicate, std and batch per sequence")

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True)
class Dataset:
    """Readings as models see them: one row per item, higher is better.

    Attributes:
        space: The design space the items lie in.
        tokens: (n, L) int64, distinct items (canonical strand where the space is strand-symmetric).
        values: (n,) float64, mean over replicates, in the assay's unit, sign turned where the goal is to minimise.
        counts: (n,) int64, readings behind each value.
        noise_std: (n,) float64, standard deviation of ONE reading of that item; NaN where nothing tells it.
        unit: The assay's unit.
    """

    space: DesignSpace
    tokens: NDArray[np.int64]
    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    noise_std: NDArray[np.float64]
    unit: str = ""

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Dataset:
        """The items at `index`, (k,) int64 or (n,) bool."""
        return Dataset(
            self.space, self.tokens[index], self.values[index], self.counts[index], self.noise_std[index], self.unit
        )


def to_dataset(readings: Readings, space: DesignSpace, goal: Goal = "maximize", unit: str = "") -> Dataset:
    """Fold replicates (and, where the space is strand-symmetric, the two strands) into one row per item.

    The noise of one reading is the pooled within-item standard deviation where items have replicates, else the
    readings' own stds, else NaN. Items keep the order of their first reading.
    """
    tokens = space.canonical(space.encode(readings.sequences))
    items, first, inverse = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    values = readings.values if goal == "maximize" else -readings.values
    counts = np.bincount(inverse, minlength=len(items))
    means = np.bincount(inverse, weights=values, minlength=len(items)) / counts
    squares = np.bincount(inverse, weights=(values - means[inverse]) ** 2, minlength=len(items))
    degrees = int((counts - 1).sum())
    noise = np.full(len(items), np.nan)
    if degrees >= 10:
        noise[:] = np.sqrt(squares.sum() / degrees)
    elif readings.stds is not None:
        noise = np.sqrt(np.bincount(inverse, weights=readings.stds**2, minlength=len(items)) / counts)
    order = np.argsort(first, kind="stable")
    return Dataset(space, items[order], means[order], counts[order].astype(np.int64), noise[order], unit)
