"""Figures of `plait benchmark`, as PNG files that a biologist can read without the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.benchmarks.cells import Row
from plait.benchmarks.scoring import Scores
from plait.benchmarks.tables import number
from plait.reporting.theme import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PINK,
    RED,
    SKY,
    VIOLET,
    drawing_style,
    grid_figure,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Values = NDArray[np.float64]
Groups = dict[str, list[Row]]
"""Method -> its finished runs, the best method first."""

PALETTE = (BLUE, RED, GREEN, ORANGE, VIOLET, PINK, SKY)
"""Of the best methods; the others' lines are grey."""
DPI = 150
NARROWEST = 8.4
"""Inches that a figure's title needs."""
DEFAULT = "default"


def write_figures(folder: Path, rows: Sequence[Row]) -> tuple[Path, ...]:
    """Draw every figure that the rows can fill; the files written.

    Args:
        folder: Made where it does not exist.
        rows: Of any tasks, methods and seeds; failed runs are left out.
    """
    tasks = {task: _by_method([r for r in rows if r.task == task]) for task in dict.fromkeys(r.task for r in rows)}
    tasks = {task: groups for task, groups in tasks.items() if groups}
    if not tasks:
        return ()
    listed = {task: groups for task, groups in tasks.items() if any(_has_top(r) for g in groups.values() for r in g)}
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Callable[[], Figure]] = {
        "best_by_wells": lambda: best_by_wells(tasks),
        "promise_and_truth": lambda: promise_and_truth(tasks),
        "final_scores": lambda: final_scores(tasks),
    }
    if listed:
        drawn["top_share_by_round"] = lambda: top_share_by_round(listed)
    paths = []
    with drawing_style():
        for name, draw in drawn.items():
            paths.append(folder / f"{name}.png")
            draw().savefig(paths[-1], dpi=DPI, facecolor=PAPER)
    return tuple(paths)


def best_by_wells(tasks: dict[str, Groups]) -> Figure:
    """The best true value found so far against wells spent, a line a method, a band over seeds."""
    return _lines(
        tasks,
        "How fast does each way of designing find something good?",
        "wells spent",
        "best true value so far",
        lambda scores: _with_start(scores, scores.offline_best, scores.best_by_round),
    )


def top_share_by_round(tasks: dict[str, Groups]) -> Figure:
    """The share of each round's batch in the true top 1 %, a line a method, a band over seeds."""
    figure = _lines(
        tasks,
        "How much of each plate is truly among the best 1 % of all sequences?",
        "wells spent",
        "share of the round's plate",
        lambda scores: _with_start(scores, None, scores.top_share_by_round),
    )
    for axes in figure.axes:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_ylim(bottom=0)
    return figure


def promise_and_truth(tasks: dict[str, Groups]) -> Figure:
    """What the last plate was predicted to read (open) and truly is (filled), by method: over-optimisation."""
    height = 0.9 + 0.26 * max(len(groups) for groups in tasks.values())
    figure, panels = _panels(len(tasks), height)
    for panel, (task, groups) in zip(panels, tasks.items(), strict=True):
        rows = [(m, g) for m, g in groups.items() if any(_scores(r).median is not None for r in g)]
        for place, (_, group) in enumerate(rows):
            proxy = _mean([_scores(r).proxy for r in group])
            truth = _mean([_scores(r).median for r in group])
            colour = RED if any(r.status == "collapsed" for r in group) else BLUE
            panel.plot([truth, proxy], [place, place], color=GRID, linewidth=2.5, zorder=1)
            panel.scatter([proxy], [place], s=34, facecolor=PAPER, edgecolor=colour, linewidths=1.4, zorder=2)
            panel.scatter([truth], [place], s=38, color=colour, zorder=3)
        _method_ticks(panel, [m for m, _ in rows], [g for _, g in rows])
        panel.set_title(task)
        panel.set_xlabel("median of the last plate")
        panel.grid(axis="x", linewidth=0.7)
    _title(
        figure,
        "What was promised (open) and what was true (filled)",
        "values in each assay's unit, means over seeds; red: the method repeats itself",
    )
    return figure


def final_scores(tasks: dict[str, Groups]) -> Figure:
    """A heat map of methods by tasks; colours compare methods within a task, from its worst to its best."""
    names = list(tasks)
    methods = _methods(tasks)
    figure = new_figure(max(NARROWEST, 2.4 + 1.15 * len(names)), 1.4 + 0.3 * len(methods))
    axes = figure.subplots()
    finals = [[_mean([r.final for r in tasks[t].get(m, [])]) for t in names] for m in methods]
    shades = np.array([_ranked(column) for column in np.array(finals).T]).T
    axes.imshow(np.ma.masked_invalid(shades), cmap="YlGnBu", vmin=0, vmax=1.25, aspect="auto")
    for i, method in enumerate(methods):
        for j, task in enumerate(names):
            group = tasks[task].get(method, [])
            mark = " ✕" if any(r.status == "collapsed" for r in group) else ""
            text = f"{_final_text(group, finals[i][j])}{mark}" if group else "–"
            colour = PAPER if shades[i][j] > 0.72 else INK
            axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0)
    axes.set_yticks(range(len(methods)), methods)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _title(
        figure,
        "Which way of designing ends best on which problem?",
        "per cent: share of the last plate in the true top 1 %; number: best true value; ✕ repeats itself",
    )
    return figure


def _lines(
    tasks: dict[str, Groups], title: str, across: str, up: str, curve: Callable[[Scores], tuple[Values, Values]]
) -> Figure:
    """A panel a task, a line a method with a band of one standard deviation over seeds; the best ones coloured."""
    figure, panels = _panels(len(tasks), 3.2)
    coloured = _coloured(tasks)
    for panel, (task, groups) in zip(panels, tasks.items(), strict=True):
        for method in reversed(groups):
            _line(panel, [curve(_scores(row)) for row in groups[method]], coloured.get(method))
        panel.set_title(task)
        panel.set_xlabel(across)
        panel.grid(linewidth=0.7)
    for panel in panels[::3]:
        panel.set_ylabel(up)
    figure.legend(handles=_handles(coloured), loc="outside lower left", ncols=len(coloured))
    grey = "; grey: the other methods" if len(_methods(tasks)) > len(coloured) else ""
    _title(figure, title, f"lines: means over seeds, bands: one standard deviation{grey}")
    return figure


def _line(panel: Axes, curves: list[tuple[Values, Values]], colour: str | None) -> None:
    """One method's runs: their mean and, in colour, a band; grey without a colour."""
    length = min(len(wells) for wells, _ in curves)
    wells = np.mean([wells[:length] for wells, _ in curves], axis=0)
    values = np.array([by_round[:length] for _, by_round in curves])
    mean, spread = values.mean(0), values.std(0)
    width, alpha, layer = (0.8, 0.6, 2) if colour is None else (2.0, 1.0, 3)
    marker = "o" if len(wells) < 6 else None
    panel.plot(
        wells, mean, color=colour or GREY, marker=marker, markersize=3.5, linewidth=width, alpha=alpha, zorder=layer
    )
    if colour is not None and len(values) > 1:
        panel.fill_between(wells, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)


def _handles(coloured: dict[str, str]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colour, linewidth=2.0, label=method) for method, colour in coloured.items()]


def _methods(tasks: dict[str, Groups]) -> list[str]:
    """Every method, the best standing first."""
    return sorted({m for groups in tasks.values() for m in groups}, key=lambda m: -_standing(m, tasks))


def _coloured(tasks: dict[str, Groups]) -> dict[str, str]:
    """The methods with a colour of their own, the same in every panel: the default, then the best."""
    ordered = _methods(tasks)
    first = [method for method in ordered if method == DEFAULT]
    return dict(zip([*first, *(m for m in ordered if m != DEFAULT)], PALETTE, strict=False))


def _with_start(scores: Scores, start: float | None, by_round: Sequence[float | None]) -> tuple[Values, Values]:
    """Wells and values by round, from the offline data on where something is known of it."""
    wells = np.linspace(0, scores.wells, scores.rounds + 1)
    values = np.array([np.nan if value is None else value for value in (start, *by_round)], dtype=np.float64)
    return (wells, values) if start is not None else (wells[1:], values[1:])


def _by_method(rows: Sequence[Row]) -> Groups:
    """Finished runs by method, the best mean final figure first; methods that collapsed in a run come last."""
    groups: Groups = {}
    for row in rows:
        if row.scores is not None:
            groups.setdefault(row.method, []).append(row)

    def order(item: tuple[str, list[Row]]) -> tuple[bool, float]:
        has_collapsed = any(row.status == "collapsed" for row in item[1])
        return has_collapsed, -float(np.nan_to_num(_mean([row.final for row in item[1]]), nan=-1e9))

    return dict(sorted(groups.items(), key=order))


def _standing(method: str, tasks: dict[str, Groups]) -> float:
    """A method's mean rank among the methods of each task, 1 the best."""
    orders = [list(groups) for groups in tasks.values() if method in groups]
    return float(np.mean([1 - order.index(method) / max(1, len(order) - 1) for order in orders]))


def _ranked(values: Values) -> Values:
    """Values between nothing (0, or the smallest where that is below) and the largest (1): a hair stays a hair."""
    low, high = min(0.0, float(np.nanmin(values))), np.nanmax(values)
    return np.asarray((values - low) / (high - low) if high > low else values - low + 0.5)


def _final_text(group: list[Row], value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.0%}" if any(_has_top(row) for row in group) else number(value)


def _method_ticks(axes: Axes, methods: list[str], groups: list[list[Row]]) -> None:
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    for tick, group in zip(axes.get_yticklabels(), groups, strict=True):
        if any(row.status == "collapsed" for row in group):
            tick.set_color(RED)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels in rows of three, each row `height` inches."""
    figure, panels = grid_figure(count, 3, height, share=False)
    figure.set_figwidth(max(NARROWEST, figure.get_figwidth()))
    return figure, panels


def _title(figure: Figure, title: str, below: str) -> None:
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    figure.text(0.01, 1.0, f"\n\n{below}", ha="left", va="top", fontsize=9, color=MUTED)


def _scores(row: Row) -> Scores:
    if row.scores is None:
        raise ValueError(f"{row.task} {row.method} seed {row.seed} failed: it has no scores")
    return row.scores


def _has_top(row: Row) -> bool:
    return row.scores is not None and row.scores.top_share is not None


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
