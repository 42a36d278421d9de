"""The map as tables: four Parquet files, and map.md for readers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from plait.benchmarks.tables import write_records

if TYPE_CHECKING:
    from plait.benchmarks.conservatism_map import Cell

Setting = tuple[str, float]
"""Uncertainty and scale."""
Place = tuple[str, str]
"""Situation and task."""
FIXED: dict[str, Setting] = {
    "none": ("none", 0.0),
    "boot 0.5": ("bootstrap_spread", 0.5),
    "boot 1": ("bootstrap_spread", 1.0),
    "bonus 1": ("elliptical", 1.0),
}
"""Column -> setting, beside `auto` and the best in hindsight."""


def write_tables(output: Path, cells: Sequence[Cell]) -> None:
    """policies, batches, correlations, choices (Parquet) and map.md."""
    output.mkdir(parents=True, exist_ok=True)
    place = [{"task": c.task, "situation": c.situation, "seed": c.seed} for c in cells]
    pairs = list(zip(place, cells, strict=True))
    write_records(output / "policies.parquet", [p | asdict(row) for p, c in pairs for row in (*c.policies, *c.loosest)])
    write_records(output / "batches.parquet", [p | asdict(row) for p, c in pairs for row in c.batches])
    correlations = [p | {"uncertainty": u, "correlation": r} for p, c in pairs for u, r in c.correlations.items()]
    write_records(output / "correlations.parquet", correlations)
    write_records(output / "choices.parquet", [p | c.choice for p, c in pairs])
    (output / "map.md").write_text(markdown(cells), encoding="utf-8")


def policy_gains(cell: Cell) -> dict[Setting, float]:
    """True gain of each setting's optimal policy, gate on, at the loosest leash that keeps half its draws distinct."""
    return {(row.uncertainty, row.scale): row.truth for row in cell.loosest}


def batch_gains(cell: Cell) -> dict[Setting, float]:
    """True gain of each setting's best batch."""
    return {(row.uncertainty, row.scale): row.truth for row in cell.batches}


def places(cells: Sequence[Cell]) -> dict[Place, list[Cell]]:
    """The cells of one situation and task, in the order of the run."""
    found: dict[Place, list[Cell]] = defaultdict(list)
    for cell in cells:
        found[cell.situation, cell.task].append(cell)
    return found


def chosen(cell: Cell) -> Setting:
    """What `auto` chose."""
    return str(cell.choice["kind"]), float(cell.choice["scale"])


def mean_gains(cells: Sequence[Cell], gains: Callable[[Cell], dict[Setting, float]]) -> dict[Setting, float]:
    """Mean over seeds by setting."""
    by_seed = [gains(cell) for cell in cells]
    return {setting: fmean(g[setting] for g in by_seed) for setting in by_seed[0]}


def auto_gain(cells: Sequence[Cell], gains: Callable[[Cell], dict[Setting, float]]) -> float:
    """Mean over seeds of what `auto` chose in each."""
    return fmean(gains(cell)[chosen(cell)] for cell in cells)


def _shown(setting: Setting) -> str:
    return "none" if setting[0] == "none" else f"{setting[0]} {setting[1]:+g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _settings_table(cells: Sequence[Cell], gains: Callable[[Cell], dict[Setting, float]]) -> str:
    rows = []
    for (situation, task), group in places(cells).items():
        means = mean_gains(group, gains)
        best = max(means, key=lambda setting: means[setting])
        picks = ", ".join(sorted({_shown(chosen(cell)) for cell in group}))
        figures = [f"{means[setting]:.2f}" for setting in FIXED.values()]
        auto = f"**{auto_gain(group, gains):.2f}** ({picks})"
        rows.append([situation, task, f"{means[best]:.2f} ({_shown(best)})", auto, *figures])
    return _table(["situation", "task", "best in hindsight", "auto", *FIXED], rows)


def _correlation_table(cells: Sequence[Cell]) -> str:
    names = list(cells[0].correlations)
    rows = [
        [situation, task, *(f"{fmean(c.correlations[n] for c in group):+.2f}" for n in names)]
        for (situation, task), group in places(cells).items()
    ]
    return _table(["situation", "task", *names], rows)


def _leash_table(cells: Sequence[Cell]) -> str:
    rows = []
    for (situation, task), group in places(cells).items():
        plain = [[row for row in c.policies if row.uncertainty == "none" and not row.is_gated] for c in group]
        weights = sorted({row.kl_weight for row in plain[0]})
        means = []
        for weight in weights:
            here = [row for rows_ in plain for row in rows_ if row.kl_weight == weight]
            means.append(f"{fmean(r.truth for r in here):.2f} / {fmean(r.proxy for r in here):.2f}")
        rows.append([situation, task, *means])
    header = ["STRL (0)" if weight == 0 else f"{weight:g}" for weight in weights]
    return _table(["situation", "task", *header], rows)


def markdown(cells: Sequence[Cell]) -> str:
    """The map for readers."""
    return f"""# When conservatism pays

Gains: 0 is the mean offline item, 1 the mean of the 96 best items there are. Means over seeds. A scale above 0 is a
penalty, below 0 what is uncertain is sought.

## The best new batch of 96 by the conservative value, support gate on: true gain

{_settings_table(cells, batch_gains)}

## The optimal policy at the loosest leash that keeps half of 96 draws distinct, support gate on: true gain

{_settings_table(cells, policy_gains)}

## Partial rank correlation of each uncertainty and the truth, given the prediction (top 5 % by prediction)

Below 0 a penalty helps.

{_correlation_table(cells)}

## The leash: true / predicted gain of the optimal policy by kl_weight (offline standard deviations per nat), no gate

{_leash_table(cells)}
"""
