"""Shared drawing: pairs of box plots (predicted open, outcome filled), reference lines, clouds of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plait.campaign.report_data import AssayAim, ReportData
from plait.reporting.outcomes import Values, better_word
from plait.reporting.theme import GRID, INK, MANY_POINTS, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_LABEL = 60


@dataclass(frozen=True)
class Column:
    """One place on the horizontal axis: predictions and outcomes, either may be empty."""

    label: str
    colour: str
    predicted: Values
    outcome: Values


def value_label(data: ReportData | AssayAim, what: str = "") -> str:
    """An axis label for values: what, the assay, its unit, which way is better."""
    name = f"{what} {data.assay}".strip()
    name = name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"
    return f"{name} ({data.unit})" if data.unit and data.unit not in data.assay else name


def value_axis(axes: Axes, data: ReportData, what: str = "") -> None:
    """Labels the vertical axis with values and which way is better."""
    arrow = "↑" if data.goal == "maximize" else "↓"
    axes.set_ylabel(f"{value_label(data, what)}\n{better_word(data)} {arrow}")
    axes.grid(axis="y", linewidth=0.7)


def paired_boxes(axes: Axes, columns: list[Column]) -> None:
    """Per column an open box of predictions beside a filled box of outcomes, with their points.

    Boxes are quartiles with the median as a line, whiskers the 10% and 90% quantiles.
    """
    jitter = np.random.default_rng(0)
    for place, column in enumerate(columns):
        both = len(column.predicted) > 0 and len(column.outcome) > 0
        if len(column.predicted):
            _box(axes, place - 0.21 * both, column.predicted, column.colour, jitter, is_filled=False)
        if len(column.outcome):
            _box(axes, place + 0.21 * both, column.outcome, column.colour, jitter, is_filled=True)
    axes.set_xticks(range(len(columns)), [column.label for column in columns])
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.tick_params(axis="x", length=0)


def _box(
    axes: Axes, place: float, values: Values, colour: str, jitter: np.random.Generator, *, is_filled: bool
) -> None:
    parts = axes.boxplot(
        [values],
        positions=[place],
        widths=0.34,
        whis=(10, 90),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour if is_filled else "none", "edgecolor": colour, "linewidth": 1.4},
        whiskerprops={"color": colour, "linewidth": 1.2},
        capprops={"color": colour, "linewidth": 1.2},
        medianprops={"color": INK, "linewidth": 2.0},
    )
    if is_filled:
        for box in parts["boxes"]:
            box.set_facecolor((*_rgb(colour), 0.45))
    spread = jitter.uniform(-0.13, 0.13, len(values))
    axes.scatter(
        place + spread,
        values,
        s=5,
        color=colour,
        alpha=0.55,
        linewidths=0,
        zorder=1.5,
        rasterized=len(values) > MANY_POINTS,
    )


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def reference_line(axes: Axes, value: float, label: str, style: str = "--") -> None:
    """A horizontal line that is named in the legend."""
    axes.axhline(value, color=INK, linestyle=style, linewidth=1.2, zorder=1, label=label)


def box_legend(axes: Axes, outcome: str, *, has_outcome: bool = True) -> None:
    """The legend of paired boxes above the panel: open and filled, then the named lines."""
    from matplotlib.patches import Patch

    lines = axes.get_legend_handles_labels()[0]
    boxes = [Patch(facecolor="none", edgecolor=MUTED, label="open: predicted (proxy)")]
    if has_outcome:
        boxes.append(Patch(facecolor=(*_rgb(MUTED), 0.45), edgecolor=MUTED, label=f"filled: {outcome}"))
    axes.legend(handles=[*boxes, *lines], loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2)


def square_limits(axes: Axes, *groups: Values) -> tuple[float, float]:
    """The same limits on both axes, wide enough for all values, with the diagonal drawn."""
    values = np.concatenate(groups)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.plot(limits, limits, color=MUTED, linestyle="--", linewidth=1.0, zorder=1)
    axes.grid(linewidth=0.7, color=GRID)
    return limits
