"""Simulated labs: real measurements that answer as a lab would. One file per scenario, found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Protocol

from plait.design.alphabets import Alphabet
from plait.design.errors import NotFoundError
from plait.design.records import Readings
from plait.design.space import DesignSpace


class Scenario(Protocol):
    """A campaign's start and a lab that answers at once.

    Attributes:
        name: The file's name in this folder.
        title: What it is, for reports.
        source: Citation of the measurements.
        alphabet: What sequences are written in.
        template: IUPAC template of the design space.
        unit: Unit of the readings; more is better.
    """

    name: str
    title: str
    source: str
    alphabet: Alphabet
    template: str
    unit: str

    def offline_readings(self, percentile: float = 90, size: int = 2_000, seed: int = 0) -> Readings:
        """`size` readings drawn without replacement from those at or below `percentile` (0 to 100)."""
        ...

    def corpus(self) -> tuple[str, ...]:
        """Distinct natural sequences that fit the template, sorted."""
        ...

    def measure(self, sequences: Sequence[str]) -> list[float | None]:
        """The lab's reading of each sequence; None where the well failed."""
        ...

    def covers(self, space: DesignSpace) -> bool:
        """Whether the lab measures sequences of this space at all."""
        ...

    def truth(self) -> dict[str, float]:
        """The best estimate of every sequence known well enough; for benchmarks and reports, never for a campaign."""
        ...


def list_scenarios() -> list[str]:
    """Names of the scenarios, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("build_"))


def find_scenario(name: str) -> Scenario:
    """The scenario called `name`.

    Raises:
        NotFoundError: There is none; the message lists what there is.
    """
    if name not in list_scenarios():
        raise NotFoundError(f"there is no scenario '{name}'", hint=f"there are: {', '.join(list_scenarios())}")
    scenario: Scenario = importlib.import_module(f"{__name__}.{name}").SCENARIO
    return scenario
