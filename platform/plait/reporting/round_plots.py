"""Pictures of the campaign's own rounds: values, calibration, variety, the funnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plait.campaign.report_data import ReportData, RoundSummary
from plait.reporting._boxes import (
    Column,
    box_legend,
    paired_boxes,
    reference_line,
    square_limits,
    value_axis,
    value_label,
)
from plait.reporting.method_plots import variety
from plait.reporting.outcomes import Values, designs_of, finite, value_decimals
from plait.reporting.theme import (
    BLUE,
    GREY,
    MANY_POINTS,
    RED,
    SKY,
    Picture,
    finish,
    grid_figure,
    new_figure,
    number,
    percent,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Z90 = 1.6448536


def round_over_round(data: ReportData) -> Picture:
    """Box plots of offline values and of each round's designs, with the best offline reading as a line."""
    decimals = value_decimals(data)
    columns = [Column("offline", GREY, np.zeros(0), finite(data.benchmark.values))]
    proposed = [summary for summary in data.rounds if summary.sequences]
    for summary in proposed:
        measured = finite(summary.measured)
        label = f"round {summary.number}\n{len(measured)} of {len(summary.sequences)}\nmeasured"
        columns.append(Column(label, BLUE, finite(summary.predicted_mean), measured))
    figure = new_figure(max(8.2, min(10.0, 2.6 + 1.7 * len(columns))), 4.6)
    axes = figure.subplots()
    reference_line(axes, data.offline_best, f"best offline reading: {number(data.offline_best, decimals)}")
    if data.top_threshold is not None:
        reference_line(axes, data.top_threshold, f"true top 1%: {number(data.top_threshold, decimals)}", "-.")
    paired_boxes(axes, columns)
    value_axis(axes, data)
    box_legend(axes, "measured")
    medians = "; ".join(_spoken(summary, decimals) for summary in proposed)
    work = f"As far as {data.assay} goes, rounds work" if data.aims else "Rounds work"
    return finish(
        figure,
        "rounds-values",
        "Round over round",
        "Every dot is a sequence; open boxes are what was predicted, filled boxes what was measured. "
        f"{work} when filled boxes move {'up' if data.goal == 'maximize' else 'down'}, past the dashed line of the "
        "best offline reading.",
        f"Box plots of offline values (median {number(data.offline_median, decimals)}) and rounds: {medians}.",
    )


def _spoken(summary: RoundSummary, decimals: int) -> str:
    measured = finite(summary.measured)
    if len(measured) == 0:
        predicted = number(float(np.median(summary.predicted_mean)), decimals)
        return f"round {summary.number} not measured yet, predicted median {predicted}"
    return f"round {summary.number} measured median {number(float(np.median(measured)), decimals)}"


def measured_rounds(data: ReportData) -> list[RoundSummary]:
    """Rounds with at least one reading."""
    return [summary for summary in data.rounds if len(finite(summary.measured))]


def proxy_against_measured(data: ReportData) -> Picture:
    """Per round, predictions with their 90% intervals against readings."""
    rounds = measured_rounds(data)
    figure, panels = grid_figure(len(rounds), 3, 3.6)
    triples = [_predicted_and_read(summary) for summary in rounds]
    everything = np.concatenate([values for mean, _, read in triples for values in (mean, read)])
    for panel, summary, (mean, std, read) in zip(panels, rounds, triples, strict=True):
        square_limits(panel, everything)
        _intervals(panel, mean, std, read)
        panel.set_title(f"Round {summary.number}: {_calibration(summary)}", fontsize=9.5)
        panel.set_xlabel(f"predicted ({data.unit})" if data.unit else "predicted")
    panels[0].set_ylabel(value_label(data, "measured"))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return finish(
        figure,
        "rounds-calibration",
        "Predicted against measured",
        "Each mark is a design, its bar the interval that should hold the reading nine times out of ten; dots lie "
        "inside their interval, crosses outside. Well calibrated means about 90% inside, useful means a cloud that "
        "rises.",
        "Scatter of predicted against measured values: "
        + "; ".join(
            f"round {s.number}, {len(t[2])} designs, {_calibration(s)}" for s, t in zip(rounds, triples, strict=True)
        )
        + ".",
    )


def _predicted_and_read(summary: RoundSummary) -> tuple[Values, Values, Values]:
    rows = np.array([(d.predicted, d.predicted_std, d.measured) for d in designs_of(summary)], dtype=np.float64)
    mean, std, read = rows[np.isfinite(rows[:, 2])].T
    return mean, std, read


def _intervals(panel: Axes, mean: Values, std: Values, read: Values) -> None:
    inside = np.abs(read - mean) <= _Z90 * std
    low, high = panel.get_xlim()
    is_raster = len(mean) > MANY_POINTS
    for chosen, colour, marker, label in (
        (inside, BLUE, "o", "inside its 90% interval"),
        (~inside, RED, "x", "outside"),
    ):
        left, right = np.maximum(mean - _Z90 * std, low)[chosen], np.minimum(mean + _Z90 * std, high)[chosen]
        panel.hlines(read[chosen], left, right, color=colour, alpha=0.25, linewidth=1.0, rasterized=is_raster)
        panel.scatter(
            mean[chosen], read[chosen], s=16, color=colour, marker=marker, alpha=0.85, label=label, zorder=3,
            linewidths=1.2 if marker == "x" else 0, rasterized=is_raster,
        )  # fmt: skip


def _calibration(summary: RoundSummary) -> str:
    if summary.coverage_90 is None or summary.measured_spearman is None:
        return "too few readings to judge"
    return f"{percent(summary.coverage_90)} inside, Spearman {number(summary.measured_spearman, 2)}"


def round_variety(data: ReportData) -> Picture:
    """Diversity and novelty by round."""
    proposed = [summary for summary in data.rounds if summary.sequences]
    return variety(
        "rounds-variety",
        "Diversity and novelty by round",
        [f"round {summary.number}" for summary in proposed],
        [BLUE] * len(proposed),
        [summary.diversity for summary in proposed],
        [summary.novelty for summary in proposed],
    )


def funnel(data: ReportData) -> Picture:
    """How many candidates were left after each step, per round."""
    from matplotlib.ticker import LogLocator

    rounds = [summary for summary in data.rounds if summary.funnel]
    stages = max(len(summary.funnel) for summary in rounds)
    figure, panels = grid_figure(len(rounds), 3, 0.9 + 0.3 * stages, share=False)
    for panel, summary in zip(panels, rounds, strict=True):
        names, counts = [name for name, _ in summary.funnel], [count for _, count in summary.funnel]
        bars = panel.barh(range(len(names)), np.maximum(counts, 0.7) - 0.7, left=0.7, color=SKY, height=0.7)
        panel.bar_label(bars, [f"{count:,}" for count in counts], padding=4, fontsize=9)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
        panel.xaxis.set_major_locator(LogLocator(base=100, subs=(1.0,)))
        panel.minorticks_off()
        panel.set_xlim(0.7, 12 * max(1, *counts))
        panel.set_yticks(range(len(names)), names)
        panel.invert_yaxis()
        panel.set_title(f"Round {summary.number}")
        panel.set_xlabel("candidates (log scale)")
    spoken = "; ".join(
        f"round {s.number}: " + ", ".join(f"{name} {count:,}" for name, count in s.funnel) for s in rounds
    )
    return finish(
        figure,
        "funnel",
        "From candidates to the plate",
        "From top to bottom, where candidates came from (sampled from the policy; enumerated, the best-predicted "
        "once every sequence of the space was scored) and how many were left after each step of the selection; "
        "where a bar shrinks sharply, that step decided.",
        f"Bars of candidates left after each step. {spoken}.",
    )
