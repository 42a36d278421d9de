"""Pictures of the data itself, before any design."""

from __future__ import annotations

import numpy as np

from plait.campaign.report_data import ReportData
from plait.reporting._boxes import square_limits, value_label
from plait.reporting.outcomes import finite, value_decimals
from plait.reporting.theme import BLUE, INK, MANY_POINTS, MUTED, ORANGE, Picture, finish, new_figure, number, percent


def value_histogram(data: ReportData) -> Picture:
    """The measured values, with the median, the best and the true top 1%."""
    values, decimals = finite(data.benchmark.values), value_decimals(data)
    figure = new_figure(10.0, 3.4)
    axes = figure.subplots()
    axes.hist(values, bins=min(50, max(5, int(np.sqrt(len(values))))), color=BLUE, alpha=0.75)
    lines = [(data.offline_median, "median", ":"), (data.offline_best, "best", "--")]
    if data.top_threshold is not None:
        lines.append((data.top_threshold, "true top 1% begins", "-."))
    for value, label, style in lines:
        axes.axvline(value, color=INK, linestyle=style, linewidth=1.3, label=f"{label}: {number(value, decimals)}")
    axes.set_xlabel(value_label(data, "measured"))
    axes.set_ylabel("number of sequences")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2)
    spread = (
        f"from {number(float(values.min()), decimals)} to {number(float(values.max()), decimals)}"
        if len(values)
        else ""
    )
    goal = "right" if data.goal == "maximize" else "left"
    return finish(
        figure,
        "values",
        "What was measured",
        f"How many offline sequences read which value; the search wants to go further to the {goal}.",
        f"Histogram of {len(values)} measured values {spread}; median {number(data.offline_median, decimals)}, "
        f"best {number(data.offline_best, decimals)} {data.unit}.",
    )


def held_out_scatter(data: ReportData) -> Picture:
    """Predictions for held-out sequences against their readings, with the noise of one reading as a band."""
    benchmark, decimals = data.benchmark, value_decimals(data)
    predicted, observed = np.array(benchmark.predicted), np.array(benchmark.observed)
    figure = new_figure(6.2, 5.2)
    axes = figure.subplots()
    low, high = square_limits(axes, predicted, observed)
    if benchmark.noise_std is not None:
        ends = np.array([low, high])
        axes.fill_between(
            ends, ends - benchmark.noise_std, ends + benchmark.noise_std, color=ORANGE, alpha=0.22, linewidth=0
        )
        axes.text(
            0.02, 0.98, f"band: noise of one reading, ±{number(benchmark.noise_std, decimals)}",
            transform=axes.transAxes, va="top", fontsize=9, color=MUTED,
        )  # fmt: skip
    axes.scatter(predicted, observed, s=9, color=BLUE, alpha=0.5, linewidths=0, rasterized=len(predicted) > MANY_POINTS)
    axes.set_xlabel(value_label(data, "predicted"))
    axes.set_ylabel(value_label(data, "measured"))
    return finish(
        figure,
        "held-out",
        "Can a model predict what it has not seen?",
        "Each dot is a sequence that was hidden from the model; the nearer to the dashed diagonal, the "
        "better it was predicted.",
        f"Scatter of {len(predicted)} held-out sequences, predicted against measured: Spearman correlation "
        f"{number(benchmark.held_out_spearman, 2)}, {percent(benchmark.coverage_90)} of readings inside the "
        "90% interval.",
    )
