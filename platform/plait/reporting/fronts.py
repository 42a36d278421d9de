"""Several assays at once: what every design read in each, which are non-dominated, and how far the rounds got.

Readings are compared as the campaign's objective compares them: z = (reading - mean) / standard deviation of the
offline readings of round 1, sign turned where lower is better; only assays of positive weight count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.campaign.report_data import AssayAim, FurtherAssay, ReportData, RoundSummary
from plait.metrics.hypervolume import hypervolume_gains, non_dominated, pareto_ranks, reference_point
from plait.reporting.outcomes import Values, direction, finite


@dataclass(frozen=True)
class AssayDesign:
    """A design with its predictions and readings (k,) in the assays' units, NaN where there is none."""

    round: int
    rank: int
    sequence: str
    predicted: Values
    measured: Values


@dataclass(frozen=True)
class RankedDesign:
    """A design measured in every assay, as it stands among the others.

    Attributes:
        design: The design.
        meets: It reaches all thresholds.
        pareto_rank: Among the designs; 0 for the non-dominated.
        is_on_front: No design and no offline item dominates it.
    """

    design: AssayDesign
    meets: bool
    pareto_rank: int
    is_on_front: bool


@dataclass(frozen=True)
class Progress:
    """What was known after a round (0: offline alone).

    Attributes:
        round: Number.
        num: Designs (or offline items).
        readings: (num, k) their readings, NaN where there is none.
        hypervolume: Of everything measured so far, above the reference point, in standard deviations to the power k.
    """

    round: int
    num: int
    readings: Values
    hypervolume: float


def as_numbers(values: tuple[float | None, ...]) -> Values:
    """Values with NaN for None, (n,)."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def offline_readings(data: ReportData) -> Values:
    """(n, k) offline readings, a column per assay."""
    return np.stack([as_numbers(aim.offline) for aim in data.aims], axis=1)


def assay_designs(data: ReportData) -> list[AssayDesign]:
    """The designs of all rounds by rank, with a column per assay."""
    found = []
    for summary in data.rounds:
        assays: tuple[RoundSummary | FurtherAssay, ...] = (summary, *summary.further)
        predicted = np.stack([as_numbers(assay.predicted_mean) for assay in assays], axis=1)
        measured = np.stack([as_numbers(assay.measured) for assay in assays], axis=1)
        rows = zip(summary.sequences, predicted, measured, strict=True)
        found += [AssayDesign(summary.number, rank, *row) for rank, row in enumerate(rows, start=1)]
    return found


def measured_in(data: ReportData, rounds: int | None = None) -> Values:
    """(m, k) readings of the designs of one round, of all by default."""
    rows = [design.measured for design in assay_designs(data) if rounds in (None, design.round)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(data.aims))


def complete(readings: Values) -> Values:
    """The rows (m, k) without a gap."""
    return np.asarray(readings[np.isfinite(readings).all(1)])


def meets_thresholds(data: ReportData, readings: Values) -> NDArray[np.bool_]:
    """(n,) bool: readings (n, k) reach every threshold; not where one that counts is missing."""
    meets = np.ones(len(readings), dtype=bool)
    for aim, column in zip(data.aims, readings.T, strict=True):
        if aim.threshold is not None:
            meets &= direction(aim) * (column - aim.threshold) >= 0
    return meets


def has_front(data: ReportData) -> bool:
    """At least two assays have a say, so that one can be traded for another."""
    return sum(aim.weight > 0 for aim in data.aims) > 1


def _yardstick(aim: AssayAim) -> tuple[float, float]:
    """Mean and standard deviation of an assay's offline readings, the latter turned where lower is better."""
    offline = finite(aim.offline)
    return float(offline.mean()), direction(aim) * (float(offline.std()) or 1.0)


def standing(data: ReportData, readings: Values) -> Values:
    """(n, j) standardised readings, up is better, of the j assays that have a say."""
    columns = []
    for aim, column in zip(data.aims, readings.T, strict=True):
        if aim.weight > 0:
            centre, unit = _yardstick(aim)
            columns.append((column - centre) / unit)
    return np.stack(columns, axis=1)


def reference(data: ReportData) -> dict[str, float]:
    """The point above which hypervolume counts, by assay that has a say, in its unit."""
    counted = [aim for aim in data.aims if aim.weight > 0]
    point = reference_point(complete(standing(data, offline_readings(data))))
    return {
        aim.assay: centre + unit * float(z)
        for aim, (centre, unit), z in zip(counted, map(_yardstick, counted), point, strict=True)
    }


def _volume(points: Values, floor: Values) -> float:
    """Hypervolume of points (n, j) above a floor: the box up to their best in each column, less what is left open."""
    points = points[(points > floor).all(1)]
    if len(points) == 0:
        return 0.0
    corner = points.max(0)
    return float(np.prod(corner - floor) - hypervolume_gains(corner[None], non_dominated(points), floor)[0])


def progress(data: ReportData) -> list[Progress]:
    """Offline alone, then every round that has designs."""
    offline = offline_readings(data)
    known = non_dominated(complete(standing(data, offline)))
    floor = reference_point(known)
    found = [Progress(0, len(offline), offline, _volume(known, floor))]
    for summary in data.rounds:
        if summary.sequences:
            readings = measured_in(data, summary.number)
            known = np.concatenate([known, complete(standing(data, readings))])
            found.append(Progress(summary.number, len(readings), readings, _volume(known, floor)))
    return found


def ranked_designs(data: ReportData) -> list[RankedDesign]:
    """Designs measured in every assay: those that meet all thresholds first, by Pareto rank, then by weighted sum."""
    designs = [design for design in assay_designs(data) if np.isfinite(design.measured).all()]
    if not designs:
        return []
    readings = np.stack([design.measured for design in designs])
    z, meets = standing(data, readings), meets_thresholds(data, readings)
    ranks = pareto_ranks(z)
    offline = non_dominated(complete(standing(data, offline_readings(data))))
    on_front = pareto_ranks(np.concatenate([offline, z]))[len(offline) :] == 0
    total = z @ np.array([aim.weight for aim in data.aims if aim.weight > 0])
    return [
        RankedDesign(designs[i], bool(meets[i]), int(ranks[i]), bool(on_front[i]))
        for i in np.lexsort((-total, ranks, ~meets))
    ]
