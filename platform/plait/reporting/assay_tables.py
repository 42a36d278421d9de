"""Tables and header facts of a campaign of several assays, as text."""

from __future__ import annotations

import numpy as np

from plait.campaign.report_data import AssayAim, ReportData
from plait.reporting._boxes import value_label
from plait.reporting.fronts import (
    AssayDesign,
    Progress,
    RankedDesign,
    assay_designs,
    complete,
    has_front,
    meets_thresholds,
    progress,
    ranked_designs,
    reference,
)
from plait.reporting.outcomes import Values, better_word, finite
from plait.reporting.tables import Table
from plait.reporting.theme import decimals_for, number, percent


def reading_text(aim: AssayAim, value: float) -> str:
    """A value of an assay as text, without its unit."""
    return number(value, decimals_for(float(finite(aim.offline).std())))


def reading_with_unit(aim: AssayAim, value: float) -> str:
    """A value of an assay as text with its unit."""
    return f"{reading_text(aim, value)} {aim.unit}".rstrip()


def demand(aim: AssayAim) -> str:
    """Weight and threshold of an assay in words."""
    bound = "at least" if aim.goal == "maximize" else "at most"
    limit = "no threshold" if aim.threshold is None else f"{bound} {reading_with_unit(aim, aim.threshold)}"
    return f"weight {aim.weight:g}, {limit}"


def assay_facts(data: ReportData) -> list[tuple[str, str]]:
    """The header's facts: each assay with its goal, weight and threshold, how they are joined, and their data."""
    assays = [("Assay", f"{value_label(aim)}: {better_word(aim)}, {demand(aim)}") for aim in data.aims]
    names = [data.dataset, *(aim.assay for aim in data.aims[1:])]
    versions = (f"{name}, version {aim.dataset_version}" for name, aim in zip(names, data.aims, strict=True))
    return [*assays, ("Joined by", data.scalarisation.replace("_", " ")), ("Data", "; ".join(versions))]


def has_thresholds(data: ReportData) -> bool:
    """Some assay has one."""
    return any(aim.threshold is not None for aim in data.aims)


def progress_table(data: ReportData) -> Table:
    """Headers and a row for offline and for each round: medians, thresholds met, hypervolume of all so far."""
    headers = ["round", "measured in all", *(f"median {value_label(aim)}" for aim in data.aims)]
    headers += ["meets all thresholds"] if has_thresholds(data) else []
    headers += ["hypervolume so far", "against offline"] if has_front(data) else []
    rows = progress(data)
    return headers, [_progress_row(data, row, rows[0]) for row in rows]


def _progress_row(data: ReportData, row: Progress, offline: Progress) -> list[str]:
    medians = [_median(aim, column) for aim, column in zip(data.aims, row.readings.T, strict=True)]
    in_all = complete(row.readings)
    meets = [percent(float(meets_thresholds(data, in_all).mean()) if len(in_all) else None)]
    volume = [number(row.hypervolume if len(in_all) or row is offline else None, 2), "–"]
    if len(in_all) and row is not offline and offline.hypervolume > 0:
        volume[1] = f"{row.hypervolume / offline.hypervolume - 1:+.1%}"
    return [
        str(row.round) if row.round else "offline",
        f"{len(in_all):,} of {row.num:,}",
        *medians,
        *(meets if has_thresholds(data) else []),
        *(volume if has_front(data) else []),
    ]


def _median(aim: AssayAim, column: Values) -> str:
    known = column[np.isfinite(column)]
    return reading_text(aim, float(np.median(known))) if len(known) else "–"


def progress_note(data: ReportData) -> str:
    """What the hypervolume is, and above which point it counts; "" where the table has none."""
    if not has_front(data):
        return ""
    point = reference(data)
    counted = [aim for aim in data.aims if aim.assay in point]
    said = ", ".join(f"{aim.assay} {reading_with_unit(aim, point[aim.assay])}" for aim in counted)
    silent = [aim.assay for aim in data.aims if aim.weight == 0]
    left_out = f" Of weight 0, and so not in it: {', '.join(silent)}." if silent else ""
    return (
        "Hypervolume is how much room everything measured so far dominates, thresholds aside, in standard deviations "
        f"of each assay's offline readings multiplied. It counts from the reference point {said}: the worst readings "
        f"on the offline front, and a tenth of the front's range (at least 0.1 standard deviations) beyond.{left_out}"
    )


def assay_design_table(data: ReportData, count: int = 10) -> Table:
    """Headers and the best measured designs in all assays (or the first ranks of the last round), all as text."""
    headers = ["round", "rank", "sequence"]
    for aim in data.aims:
        headers += [f"measured {value_label(aim)}", f"predicted {aim.assay}"]
    ranked = ranked_designs(data)[:count]
    if not ranked:
        designs = assay_designs(data)
        last = [design for design in designs if design.round == designs[-1].round][:count]
        return headers, [_design_row(data, design) for design in last]
    headers += ["non-dominated among"] if has_front(data) else []
    headers += ["meets thresholds"] if has_thresholds(data) else []
    return headers, [[*_design_row(data, row.design), *_marks(data, row)] for row in ranked]


def _design_row(data: ReportData, design: AssayDesign) -> list[str]:
    cells = [str(design.round), str(design.rank), design.sequence]
    for aim, measured, predicted in zip(data.aims, design.measured, design.predicted, strict=True):
        cells += [reading_text(aim, measured), reading_text(aim, predicted)]
    return cells


def _marks(data: ReportData, row: RankedDesign) -> list[str]:
    front = "all measured" if row.is_on_front else "designs" if row.pareto_rank == 0 else "–"
    meets = "yes" if row.meets else "no"
    return [*([front] if has_front(data) else []), *([meets] if has_thresholds(data) else [])]


def assay_design_caption(data: ReportData) -> str:
    """The caption of assay_design_table: how its rows are ordered."""
    if not ranked_designs(data):
        return "First designs of the last round, none measured in every assay yet"
    first = "those that meet all thresholds first, then " if has_thresholds(data) else ""
    if not has_front(data):
        own = next(aim for aim in data.aims if aim.weight > 0)
        return f"The best designs measured in every assay: {first}by {own.assay}, the only assay with a weight"
    return (
        f"The best designs measured in every assay: {first}by Pareto rank, then by the weighted sum of standardised "
        "readings; a non-dominated one has no rival as good in every assay and better in one"
    )
