"""Pictures and tables of a sweep: what the judge and what the climbed reward say of every trial, against path KL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plait.campaign.sweep_results import FAILED, FINISHED, STOPPED, SweepResult, TrialResult
from plait.reporting.theme import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    Picture,
    decimals_for,
    drawing_style,
    finish,
    new_figure,
    number,
    percent,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
_WIDE_KL = 30.0
"""Ratio of the largest path KL to the smallest above which the axis is logarithmic."""
_LEAST_KL = 1e-3


def sweep_picture(sweep: SweepResult) -> Picture:
    """The sweep as it stands in a report."""
    best, decimals = sweep.best, _decimals(sweep)
    return finish(
        sweep_figure(sweep),
        f"sweep-{sweep.round}",
        f"Sweep of round {sweep.round}",
        "Each mark is one fine-tuning, placed by how far it went from the prior (path KL). Left: the judge's cautious "
        "reading of its designs, by which they are chosen, with a bar to what the judge expects. Right: what the model "
        "that was climbed promises. Filled circles were tuned to the end, triangles ended early, hollow marks miss a "
        "floor; the dashed line joins the trials that no other beats. Where the right panel goes on improving and the "
        "left one does not, the model is being exploited.",
        f"Scatter of {len(sweep.trials)} trials; trial {best.number} was chosen: path KL {number(best.kl, 1)} nats, "
        f"judged {number(best.judged, decimals)}, with caution {number(best.score, decimals)}, promised "
        f"{number(best.proxy, decimals)}.",
    )


def write_figure(sweep: SweepResult, file: Path) -> None:
    """The sweep as a picture file, of the kind that its name ends in.

    Raises:
        ValueError: No such kind of picture.
        OSError: It cannot be written.
    """
    with drawing_style():
        sweep_figure(sweep).savefig(file, dpi=DPI, facecolor=PAPER)


def sweep_figure(sweep: SweepResult) -> Figure:
    """Two panels over path KL: the judge's view, and the climbed reward's."""
    figure = new_figure(10.0, 4.4)
    panels = figure.subplots(1, 2, sharex=True)
    shown = [trial for trial in sweep.trials if trial.state != FAILED]
    better = "↑" if sweep.goal == "maximize" else "↓"
    unit = f" ({sweep.unit})" if sweep.unit else ""
    for axes, title in zip(panels, ("The judge, read with caution", "The model that was climbed"), strict=True):
        is_judge = axes is panels[0]
        axes.set_title(title)
        axes.set_xlabel("path KL from the prior (nats per design)")
        axes.set_ylabel(f"{'judged' if is_judge else 'predicted'}{unit}, better {better}")
        axes.grid(linewidth=0.7)
        _marks(axes, shown, sweep, is_judge)
    kls = [max(trial.kl or 0.0, _LEAST_KL) for trial in shown]
    if kls and max(kls) > _WIDE_KL * min(kls):
        panels[0].set_xscale("log")
        panels[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=5)
    return figure


def _marks(axes: Axes, trials: Sequence[TrialResult], sweep: SweepResult, is_judge: bool) -> None:
    def height(trial: TrialResult) -> float:
        return float((trial.score if is_judge else trial.proxy) or 0.0)

    def kl(trial: TrialResult) -> float:
        return max(trial.kl or 0.0, _LEAST_KL)

    colour = BLUE if is_judge else ORANGE
    axes.margins(x=0.12, y=0.14)
    if is_judge:
        for trial in trials:
            axes.plot([kl(trial)] * 2, [height(trial), trial.judged or 0.0], color=colour, alpha=0.3, linewidth=2.0)
        front = sorted((trial for trial in trials if trial.is_on_front), key=kl)
        axes.plot([kl(t) for t in front], [height(t) for t in front], "--", color=MUTED, linewidth=1.2, label="front")
    kinds = [
        ("tuned to the end", "o", colour, [t for t in trials if t.state == FINISHED]),
        ("ended early", "v", colour, [t for t in trials if t.state == STOPPED]),
        ("misses a floor", "o", "none", [t for t in trials if t.missed]),
    ]
    for label, marker, fill, members in kinds:
        if members:
            axes.scatter([kl(t) for t in members], [height(t) for t in members], s=44, marker=marker, facecolors=fill,
                         edgecolors=colour, linewidths=1.5, label=label, zorder=3)  # fmt: skip
    best = sweep.best
    axes.scatter([kl(best)], [height(best)], s=210, marker="o", facecolors="none", edgecolors=INK, linewidths=1.8,
                 label="chosen", zorder=4)  # fmt: skip
    axes.annotate(f"trial {best.number}", (kl(best), height(best)), xytext=(9, 9), textcoords="offset points",
                  color=INK, fontsize=9.5)  # fmt: skip


def sweep_table(sweep: SweepResult) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: the chosen trial first, then by the judge's cautious reading; what failed last."""
    names = [place.rpartition(".")[2] for place in sweep.axes]
    headers = ["trial", "", *names, "cautious", "judged", "promised", "path KL", "unique", "ELBO", "pass", "state"]
    sign = 1.0 if sweep.goal == "maximize" else -1.0

    def order(trial: TrialResult) -> tuple[bool, bool, float]:
        return trial.number != sweep.chosen, trial.score is None, -sign * (trial.score or 0.0)

    return headers, [_row(sweep, trial) for trial in sorted(sweep.trials, key=order)]


def _row(sweep: SweepResult, trial: TrialResult) -> list[str]:
    decimals = _decimals(sweep)
    mark = "chosen" if trial.number == sweep.chosen else "front" if trial.is_on_front else ""
    state = trial.state
    if trial.missed:
        state = f"misses {', '.join(trial.missed)}"
    elif trial.reason:
        state = f"failed: {trial.reason}"
    elif state == STOPPED:
        state = f"ended after {trial.update}"
    return [
        str(trial.number),
        mark,
        *(f"{trial.values[place]:.3g}" for place in sweep.axes),
        *(number(value, decimals) for value in (trial.score, trial.judged, trial.proxy)),
        number(trial.kl, 2),
        percent(trial.unique),
        number(trial.elbo, 3),
        percent(trial.supported),
        state,
    ]


def _decimals(sweep: SweepResult) -> int:
    values = [value for trial in sweep.trials for value in (trial.score, trial.proxy) if value is not None]
    return 1 + max(1, decimals_for(max(values) - min(values))) if values else 3
