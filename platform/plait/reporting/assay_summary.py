"""The opening sentences of a campaign of several assays."""

from __future__ import annotations

import numpy as np

from plait.campaign.report_data import ReportData
from plait.reporting.assay_tables import demand, has_thresholds, reading_with_unit
from plait.reporting.fronts import (
    RankedDesign,
    assay_designs,
    complete,
    has_front,
    meets_thresholds,
    offline_readings,
    progress,
    ranked_designs,
)
from plait.reporting.outcomes import Values, direction
from plait.reporting.theme import percent


def wanted(data: ReportData) -> str:
    """Every assay with its goal, weight and threshold, and how they are joined."""
    aims = [f"a {'high' if a.goal == 'maximize' else 'low'} {a.assay} ({demand(a)})" for a in data.aims]
    return f"{_listed(aims)}, joined by {data.scalarisation.replace('_', ' ')}"


def learnt_from(data: ReportData) -> str:
    """How many sequences were measured offline in each assay and in all."""
    offline = offline_readings(data)
    counts = zip(np.isfinite(offline).sum(0), data.aims, strict=True)
    return f"{_listed([f'{n:,} in {aim.assay}' for n, aim in counts])}, {len(complete(offline)):,} of them in every one"


def assay_rounds(data: ReportData) -> list[str]:
    """What came out in all assays at once: the front, thresholds, the best design, and the best of each assay alone."""
    num_rounds, designs = len(data.rounds), assay_designs(data)
    opening = f"In {num_rounds} round{'s' if num_rounds > 1 else ''}, {len(designs):,} designs were proposed"
    ranked = ranked_designs(data)
    if not ranked:
        return [f"{opening}; no design has been measured in every assay yet."]
    return [
        f"{opening} and {len(ranked):,} of them measured in every assay.{_front(data, ranked)}{_thresholds(data)}",
        _best(data, ranked[0]),
    ]


def _front(data: ReportData, ranked: list[RankedDesign]) -> str:
    if not has_front(data):
        return ""
    won = sum(row.is_on_front for row in ranked)
    steps = progress(data)
    before, after = steps[0].hypervolume, steps[-1].hypervolume
    if won == 0:
        return " None of them is on the front of everything measured: offline sequences are at least as good in all."
    grown = f" The hypervolume grew by {after / before - 1:.1%} over offline alone." if after > before > 0 else ""
    verb, them = ("is", "it") if won == 1 else ("are", "them")
    return f" {won:,} of them {verb} on the front: nothing measured, offline or since, dominates {them}.{grown}"


def _thresholds(data: ReportData) -> str:
    if not has_thresholds(data):
        return ""
    before, after = (
        _share(data, complete(readings))
        for readings in (offline_readings(data), np.stack([design.measured for design in assay_designs(data)]))
    )
    return f" {after} of these designs meet all thresholds, {before} of the offline sequences do."


def _share(data: ReportData, readings: Values) -> str:
    return percent(float(meets_thresholds(data, readings).mean()) if len(readings) else None)


def _best(data: ReportData, first: RankedDesign) -> str:
    design = first.design
    reads = [reading_with_unit(a, v) for a, v in zip(data.aims, design.measured, strict=True)]
    said = _listed([f"{text} in {aim.assay}" for text, aim in zip(reads, data.aims, strict=True)])
    missed = "" if first.meets else ", though it misses a threshold"
    text = f"Ranked by all assays, the first design reads {said} ({design.sequence}, round {design.round}){missed}."
    offline, designs = offline_readings(data), np.stack([d.measured for d in assay_designs(data)])
    alone = []
    for aim, before, after in zip(data.aims, offline.T, designs.T, strict=True):
        best = [direction(aim) * float(np.nanmax(direction(aim) * column)) for column in (after, before)]
        alone.append(f"{aim.assay} {reading_with_unit(aim, best[0])} (offline {reading_with_unit(aim, best[1])})")
    return f"{text} Best in each assay alone: {_listed(alone)}."


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
