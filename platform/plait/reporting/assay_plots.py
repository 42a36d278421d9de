"""The picture of a campaign of several assays: its own assay against each further one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plait.campaign.report_data import AssayAim, ReportData
from plait.metrics.hypervolume import non_dominated
from plait.reporting._boxes import value_label
from plait.reporting.assay_tables import reading_text
from plait.reporting.fronts import complete, measured_in, offline_readings
from plait.reporting.outcomes import Values, better_word, direction
from plait.reporting.theme import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MANY_POINTS,
    MUTED,
    ORANGE,
    PINK,
    RED,
    SKY,
    VIOLET,
    Picture,
    finish,
    grid_figure,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_COLOURS, _MARKERS = (BLUE, ORANGE, GREEN, RED, VIOLET, SKY, PINK), ("o", "s", "^", "D", "v", "P")


def assay_pairs(data: ReportData) -> Picture:
    """Per further assay, readings in it against readings in the own one, by round, with the fronts."""
    pairs = list(range(1, len(data.aims)))
    figure, panels = grid_figure(len(pairs), 2, 4.8, share=False)
    spoken = [_panel(panel, data, other) for panel, other in zip(panels, pairs, strict=True)]
    entries: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=3)
    return finish(
        figure,
        "assay-pairs",
        "One assay against another",
        "Every dot is a sequence measured in both assays: grey offline, filled the designs of each round. The stepped "
        "lines join the non-dominated sequences, for which no other is as good in both and better in one: dashed, of "
        "those measured offline; solid and ringed, of everything. Rounds work where the two lines part.",
        f"Scatter of measured values. {' '.join(spoken)}",
    )


def _panel(panel: Axes, data: ReportData, other: int) -> str:
    """Draws one pair and says it in words."""
    aims = (data.aims[0], data.aims[other])
    columns = [0, other]
    offline = complete(offline_readings(data)[:, columns])
    _cloud(panel, offline, GREY, "o", "offline", size=13, alpha=0.55)
    counts = []
    for place, summary in enumerate(data.rounds):
        read = complete(measured_in(data, summary.number)[:, columns])
        if len(read):
            colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
            _cloud(panel, read, colour, marker, f"round {summary.number}", size=34, alpha=0.9)
            counts.append(f"round {summary.number}, {len(read)} designs, medians {_medians(aims, read)}")
    _limits(panel, aims)
    designs = complete(measured_in(data)[:, columns])
    before, after = _front(aims, offline), _front(aims, np.concatenate([offline, designs]))
    panel.plot(*before.T, "--", drawstyle="steps-pre", color=MUTED, linewidth=1.3, label="front, offline", zorder=2)
    panel.plot(*after.T, drawstyle="steps-pre", color=INK, linewidth=1.4, label="front, all measured", zorder=2.5)
    panel.scatter(after[:, 0], after[:, 1], s=58, facecolor="none", edgecolor=INK, linewidths=1.1, zorder=4)
    panel.set_xlabel(_axis_label(aims[0], "→", "←"))
    panel.set_ylabel(_axis_label(aims[1], "↑", "↓"))
    panel.grid(linewidth=0.7)
    won = sum(bool((designs == point).all(1).any()) for point in after)
    return (
        f"{value_label(aims[1])}, {better_word(aims[1])}, against {value_label(aims[0])}, {better_word(aims[0])}: "
        f"{len(offline):,} offline sequences; {'; '.join(counts) or 'no design measured in both'}. "
        f"{won} of the {len(after)} sequences on the front of all measured are designs."
    )


def _cloud(panel: Axes, read: Values, colour: str, marker: str, label: str, *, size: float, alpha: float) -> None:
    panel.scatter(
        read[:, 0], read[:, 1], s=size, color=colour, marker=marker, alpha=alpha, linewidths=0, label=label,
        zorder=1.5 if colour == GREY else 3, rasterized=len(read) > MANY_POINTS,
    )  # fmt: skip


def _medians(aims: tuple[AssayAim, AssayAim], read: Values) -> str:
    middle = zip(aims, np.median(read, 0).tolist(), strict=True)
    return " and ".join(f"{aim.assay} {reading_text(aim, value)}" for aim, value in middle)


def _axis_label(aim: AssayAim, higher: str, lower: str) -> str:
    arrow = higher if aim.goal == "maximize" else lower
    return f"{value_label(aim, 'measured')}\n{better_word(aim)} {arrow}"


def _limits(panel: Axes, aims: tuple[AssayAim, AssayAim]) -> None:
    """Thresholds as lines, named in the legend."""
    for aim, draw, style in ((aims[0], panel.axvline, "-."), (aims[1], panel.axhline, ":")):
        if aim.threshold is not None:
            label = f"threshold of {aim.assay}: {reading_text(aim, aim.threshold)}"
            draw(aim.threshold, color=INK, linestyle=style, linewidth=1.2, zorder=1, label=label)


def _front(aims: tuple[AssayAim, AssayAim], readings: Values) -> Values:
    """The non-dominated readings (m, 2), from the worst to the best in the first assay."""
    signs = np.array([direction(aim) for aim in aims])
    front = non_dominated(signs * readings)
    return np.asarray(signs * front[np.argsort(front[:, 0])])
