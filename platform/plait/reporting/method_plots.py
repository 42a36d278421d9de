"""Pictures that compare methods: rewards, over-optimisation, diversity and novelty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plait.campaign.report_data import ReportData, TrajectoryPoint
from plait.reporting._boxes import Column, box_legend, paired_boxes, reference_line, value_axis
from plait.reporting.outcomes import (
    Values,
    finite,
    ordered_methods,
    outcome_word,
    outcomes_of,
    over_optimised,
    trajectory_methods,
    trajectory_of,
    value_decimals,
)
from plait.reporting.theme import (
    MUTED,
    PAPER,
    RED,
    Picture,
    finish,
    grid_figure,
    method_colour,
    method_marker,
    method_name,
    new_figure,
    number,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rewards_by_method(data: ReportData) -> Picture:
    """Box plots of every method's batch: predicted beside measured, or beside judged where there is no truth."""
    methods, word, decimals = ordered_methods(data), outcome_word(data), value_decimals(data)
    columns = [
        Column(
            method_name(m.method).replace("-", "-\n", 1) + ("\ncollapsed" if m.is_collapsed else ""),
            method_colour(m.method),
            finite(m.proxy),
            outcomes_of(data, m),
        )
        for m in methods
    ]
    figure = new_figure(10.0, 4.8)
    axes = figure.subplots()
    reference_line(axes, data.offline_best, f"best offline reading: {number(data.offline_best, decimals)}")
    if data.top_threshold is not None:
        reference_line(axes, data.top_threshold, f"true top 1%: {number(data.top_threshold, decimals)}", "-.")
    paired_boxes(axes, columns)
    for tick, method in zip(axes.get_xticklabels(), methods, strict=True):
        if method.is_collapsed:
            tick.set_color(RED)
            tick.set_fontweight("bold")
    value_axis(axes, data)
    box_legend(axes, word if data.has_truth else "judged (no truth known)")
    medians = ", ".join(
        f"{method_name(m.method)} {number(float(np.median(o)), decimals)}"
        for m in methods
        if len(o := outcomes_of(data, m))
    )
    stand_in = (
        ""
        if data.has_truth
        else " The truth is not known here: filled boxes show what a judge model says that the optimiser never saw."
    )
    verb = "reads" if data.has_truth else "is judged to read"
    return finish(
        figure,
        "methods-rewards",
        "Rewards by method",
        f"What each method's batch was predicted to read (open) beside what it {verb} (filled); boxes hold the middle "
        "half, whiskers reach from the 10% to the 90% quantile, and an open box far on the better side of its filled "
        f"neighbour promised too much.{stand_in}",
        f"Box plots by method; {word} medians in {data.unit or 'the assay unit'}: {medians or 'none known'}.",
    )


def over_optimisation(data: ReportData) -> Picture:
    """Proxy, judge and measured value while each policy moves away from the prior (path KL)."""
    from matplotlib.lines import Line2D

    methods, decimals = trajectory_methods(data), value_decimals(data)
    figure, panels = grid_figure(len(methods), 2 if len(methods) in (2, 4) else 3, 3.0)
    for panel, method in zip(panels, methods, strict=True):
        points = trajectory_of(data, method)
        kl = np.array([p.kl for p in points])
        _curve(panel, method, kl, tuple(p.proxy for p in points), ":")
        _curve(panel, method, kl, tuple(p.judged for p in points), "--")
        if data.has_truth:
            _curve(panel, method, kl, tuple(p.measured for p in points), "-")
        panel.set_title(f"{method_name(method)} (ends at {number(float(kl[-1]), 1)} nats)")
        panel.set_xlabel("path KL from the prior (nats)")
        panel.grid(linewidth=0.7)
    value_axis(panels[0], data)
    lines = [
        Line2D([], [], color=MUTED, linestyle=":", linewidth=1.8, label="predicted (proxy)"),
        Line2D([], [], color=MUTED, linestyle="--", linewidth=1.8, label="judged"),
        Line2D([], [], color=MUTED, linestyle="-", linewidth=1.8, label="measured"),
    ]
    figure.legend(handles=lines[: 3 if data.has_truth else 2], loc="outside upper left", ncols=3)
    ends = "; ".join(f"{method_name(m)}: {_ends(trajectory_of(data, m), decimals, data.has_truth)}" for m in methods)
    found = ", ".join(method_name(case.method) for case in over_optimised(data)) or "no method"
    truth_line, shown = (
        ("solid", "predicted, judged and measured") if data.has_truth else ("dashed", "predicted and judged")
    )
    return finish(
        figure,
        "over-optimisation",
        "Over-optimisation: does the truth follow the prediction?",
        "Each dot is a look at the policy, further right the further it has moved from natural sequences (scales "
        f"differ between panels); where the dotted line goes on improving while the {truth_line} one turns, the model "
        "is fooled.",
        f"Lines of {shown} value against path KL. {ends}. Over-optimisation seen in: {found}.",
    )


def _curve(panel: Axes, method: str, kl: Values, values: tuple[float | None, ...], style: str) -> None:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known, colour = np.isfinite(numbers), method_colour(method)
    panel.plot(kl[known], numbers[known], style, color=colour, linewidth=1.8)
    panel.scatter(
        kl[known], numbers[known], s=26, marker=method_marker(method), linewidths=1.1, zorder=3,
        facecolor=colour if style == "-" else PAPER, edgecolor=colour,
    )  # fmt: skip


def _ends(points: list[TrajectoryPoint], decimals: int, has_truth: bool) -> str:
    first, last = points[0], points[-1]
    text = f"proxy {number(first.proxy, decimals)} to {number(last.proxy, decimals)}"
    if has_truth:
        return f"{text}, measured {number(first.measured, decimals)} to {number(last.measured, decimals)}"
    return f"{text}, judged {number(first.judged, decimals)} to {number(last.judged, decimals)}"


def method_variety(data: ReportData) -> Picture:
    """Diversity and novelty by method."""
    methods = ordered_methods(data)
    labels, colours = [method_name(m.method) for m in methods], [method_colour(m.method) for m in methods]
    return variety(
        "methods-variety",
        "Diversity and novelty by method",
        labels,
        colours,
        [m.diversity for m in methods],
        [m.novelty for m in methods],
    )


def variety(
    key: str, title: str, labels: list[str], colours: list[str], diversity: list[float], novelty: list[float]
) -> Picture:
    """Two bar panels: how different designs are from each other, and from what was measured before."""
    figure = new_figure(10.0, 0.9 + 0.36 * len(labels))
    panels = figure.subplots(1, 2, sharey=True)
    axes_of = [
        (panels[0], diversity, 2, "diversity: share of letters that differ\nbetween two designs (mean over pairs)"),
        (panels[1], novelty, 1, "novelty: letters changed from the nearest\nmeasured sequence (median)"),
    ]
    for axes, values, decimals, label in axes_of:
        bars = axes.barh(range(len(labels)), np.nan_to_num(values), color=colours, height=0.66)
        axes.bar_label(bars, [number(value, decimals) for value in values], padding=4, fontsize=9)
        axes.set_xlabel(label)
        axes.margins(x=0.14)
        axes.spines["left"].set_color(MUTED)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    spoken = ", ".join(
        f"{label} {number(d, 2)} and {number(n, 1)}" for label, d, n in zip(labels, diversity, novelty, strict=True)
    )
    return finish(
        figure,
        key,
        title,
        "Left, how much designs differ from each other (0: all the same); right, how many letters they are away from "
        "anything measured before. Longer bars explore more, which is only good if the values hold.",
        f"Bars of diversity and novelty: {spoken}.",
    )
