"""What the fit of a learned reward is: refuse what teaches nothing, judge the recipe on held-out groups, fit on all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Generator, Tensor

from plait.design.errors import BadInputError
from plait.design.records import Dataset
from plait.rewards.base import Prediction
from plait.rewards.calibration import Calibration, calibrate
from plait.rewards.splits import hold_out


class _Model(Protocol):
    @property
    def calibration(self) -> Calibration | None: ...

    def predict(self, x: Tensor) -> Prediction: ...


Model = TypeVar("Model", bound=_Model)
FEWEST_ITEMS = 10


def require_teaching(dataset: Dataset) -> None:
    """Refuse a dataset that a reward cannot be fitted on.

    Raises:
        BadInputError: Too few items, or values that do not vary or are not finite.
    """
    if not np.isfinite(dataset.values).all():
        raise BadInputError("a reward cannot be fitted on readings that are not finite", hint="leave missing ones out")
    if len(dataset) < FEWEST_ITEMS or float(dataset.values.std()) <= 0:
        raise BadInputError(
            f"a reward cannot be fitted on {len(dataset)} items of {len(np.unique(dataset.values))} distinct values",
            hint=f"give at least {FEWEST_ITEMS} items whose values differ",
        )


def held_out_groups(dataset: Dataset, fraction: float, generator: Generator) -> tuple[Dataset, Dataset]:
    """The items kept and those held out, whole groups of relatives; drawn from the generator."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    kept, held_out = hold_out(dataset, seed, fraction)
    return dataset.take(kept), dataset.take(held_out)


def judged_fit(
    train: Callable[[Any, Dataset, Generator], Model], config: Any, dataset: Dataset, generator: Generator
) -> Model:
    """Train on all but held-out groups (config.held_out_fraction), which calibrate the recipe, then on everything.

    Raises:
        BadInputError: Too few items, or values that do not vary.
    """
    require_teaching(dataset)
    kept, held_out = held_out_groups(dataset, config.held_out_fraction, generator)
    trial = train(config, kept, generator)
    calibration = calibrate(trial.predict(torch.from_numpy(held_out.tokens)), held_out)
    final: Any = train(config, dataset, generator)
    judged: Model = replace(final, calibration=calibration)
    return judged
