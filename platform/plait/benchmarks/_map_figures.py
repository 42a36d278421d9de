"""The map as pictures: reward against KL, which uncertainties tell the truth, best scales, what `auto` lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.benchmarks._map_tables import (
    FIXED,
    auto_gain,
    batch_gains,
    chosen,
    mean_gains,
    places,
    policy_gains,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from plait.benchmarks.conservatism_map import Cell

PROXY, TRUE, SOUGHT = "#e69f00", "#0072b2", "#009e73"
MUTED = "#59636e"
GRID_POINTS = 40


def write_figures(output: Path, cells: Sequence[Cell]) -> None:
    """reward_against_kl, correlations, best_scale and auto as PNG in DIR/figures."""
    import matplotlib
    from matplotlib.figure import Figure

    folder = output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    style: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    with matplotlib.rc_context(style):
        for situation in dict.fromkeys(cell.situation for cell in cells):
            here = [cell for cell in cells if cell.situation == situation]
            name = "".join(c if c.isalnum() else "_" for c in situation)
            _reward_against_kl(Figure, here, situation).savefig(folder / f"reward_against_kl_{name}.png", dpi=120)
        _correlations(Figure, cells).savefig(folder / "correlations.png", dpi=120)
        _best_scale(Figure, cells).savefig(folder / "best_scale.png", dpi=120)
        _auto(Figure, cells).savefig(folder / "auto.png", dpi=120)


def _reward_against_kl(new: Callable[..., Any], cells: Sequence[Cell], situation: str) -> Any:
    """One panel a task: what the model promises and what is true, as the leash gets longer."""
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    figure = new(figsize=(max(8.0, 4.2 * min(3, len(tasks))), 3.1 * -(-len(tasks) // 3) + 0.9), layout="constrained")
    panels = figure.subplots(-(-len(tasks) // 3), min(3, len(tasks)), squeeze=False).ravel()
    for axes in panels[len(tasks) :]:
        axes.remove()
    for axes, task in zip(panels, tasks, strict=False):
        group = [cell for cell in cells if cell.task == task]
        _curve(axes, group, lambda cell: ("none", 0.0), "proxy", PROXY, "predicted, nothing subtracted (DRAKES)")
        _curve(axes, group, lambda cell: ("none", 0.0), "truth", TRUE, "true, nothing subtracted (DRAKES)")
        _curve(axes, group, lambda cell: FIXED["boot 1"], "truth", MUTED, "true, BRAID-Boot 1")
        if any(chosen(cell)[0] != "none" for cell in group):
            _curve(axes, group, chosen, "truth", SOUGHT, "true, auto")
        ends = [r for c in group for r in c.policies if r.uncertainty == "none" and not r.kl_weight and not r.is_gated]
        for field, colour, word in (("proxy", PROXY, "predicted"), ("truth", TRUE, "true")):
            values = [getattr(row, field) for row in ends]
            axes.plot(
                [row.kl for row in ends], values, "X", color=colour, ms=8, mec="white", label=f"{word}, no leash (STRL)"
            )
        axes.axhline(0, color=MUTED, lw=0.6)
        axes.set_title(task, loc="left", fontweight="bold")
        axes.set_xlabel("distance from the prior: KL, nats")
    figure.supylabel("gain: 0 the mean offline item, 1 the best batch there is")
    handles = {label: h for a in panels[: len(tasks)] for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"Predicted and true reward as the leash gets longer ({situation})", x=0.01, ha="left")
    return figure


def _curve(
    axes: Axes, cells: Sequence[Cell], setting: Callable[[Cell], tuple[str, float]], field: str, colour: str, label: str
) -> None:
    """Mean over seeds along KL, with a band from the lowest to the highest seed."""
    lines = []
    for cell in cells:
        rows = [r for r in cell.policies if (r.uncertainty, r.scale) == setting(cell) and not r.is_gated]
        rows.sort(key=lambda row: row.kl)
        lines.append((np.array([row.kl for row in rows]), np.array([getattr(row, field) for row in rows])))
    grid = np.linspace(max(kl[0] for kl, _ in lines), min(kl[-1] for kl, _ in lines), GRID_POINTS)
    values = np.stack([np.interp(grid, kl, value) for kl, value in lines])
    axes.plot(grid, values.mean(0), color=colour, lw=1.8, label=label)
    axes.fill_between(grid, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)


def _heat_map(
    new: Callable[..., Any],
    values: list[list[float]],
    rows: list[str],
    columns: list[str],
    limit: float,
    text: list[list[str]],
    title: str,
    side: str,
) -> Any:
    figure = new(figsize=(5.0 + 0.62 * len(columns), 2.6 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.array(values), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for i, line in enumerate(text):
        for j, shown in enumerate(line):
            colour = "white" if abs(values[i][j]) > 0.75 * limit else "black"
            axes.text(j, i, shown, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title, loc="left", fontweight="bold")
    figure.colorbar(image, ax=axes, label=side, shrink=0.8)
    return figure


def _columns(cells: Sequence[Cell]) -> list[str]:
    return [f"{task}, {situation}" for situation, task in places(cells)]


def _correlations(new: Callable[..., Any], cells: Sequence[Cell]) -> Any:
    names = list(cells[0].correlations)
    values = [
        [float(np.mean([c.correlations[name] for c in group])) for group in places(cells).values()] for name in names
    ]
    text = [[f"{value:+.1f}" for value in line] for line in values]
    title = "Does the truth rise (+) or fall (-) with the uncertainty, at the same prediction?"
    return _heat_map(new, values, names, _columns(cells), 0.7, text, title, "partial rank correlation")


def _best_scale(new: Callable[..., Any], cells: Sequence[Cell]) -> Any:
    names = list(cells[0].correlations)
    values, text = [], []
    for name in names:
        line, shown = [], []
        for group in places(cells).values():
            means = mean_gains(group, batch_gains)
            here = {scale: gain for (u, scale), gain in means.items() if u == name} | {0.0: means["none", 0.0]}
            best = max(here, key=lambda scale: here[scale])
            line.append(-best)
            shown.append(f"{best:+g}\n{here[best] - here[0.0]:+.2f}" if best else "0")
        values.append(line)
        text.append(shown)
    title = "Best scale in hindsight (above 0 a penalty, below 0 sought), and what it gains in the best batch"
    return _heat_map(new, values, names, _columns(cells), 2.0, text, title, "sought (blue) or penalised (red)")


def _auto(new: Callable[..., Any], cells: Sequence[Cell]) -> Any:
    """What each choice leaves on the table, against the best single setting in hindsight."""
    figure = new(figsize=(5.0 + 0.5 * len(places(cells)), 6.4), layout="constrained")
    for axes, (what, gains) in zip(
        figure.subplots(2, 1, sharex=True), {"best batch": batch_gains, "policy": policy_gains}.items(), strict=True
    ):
        for label, colour, marker in (("none", TRUE, "o"), ("boot 0.5", MUTED, "s"), ("bonus 1", PROXY, "^")):
            lost = [max(m.values()) - m[FIXED[label]] for m in (mean_gains(g, gains) for g in places(cells).values())]
            axes.plot(lost, marker, color=colour, label=label)
        best = [max(mean_gains(group, gains).values()) for group in places(cells).values()]
        auto = [b - auto_gain(group, gains) for b, group in zip(best, places(cells).values(), strict=True)]
        axes.plot(auto, "D", color=SOUGHT, label="auto")
        axes.axhline(0, color=MUTED, lw=0.6)
        axes.set_ylabel(f"gain lost, {what}")
        axes.set_xticks(range(len(places(cells))), _columns(cells), rotation=60, ha="right")
        axes.legend(frameon=False, ncols=4)
    figure.suptitle("What each choice loses against the best single setting in hindsight", x=0.01, ha="left")
    return figure
