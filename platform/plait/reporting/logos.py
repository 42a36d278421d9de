"""Sequence logos: which letters stand where, in information content."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from plait.campaign.report_data import ReportData
from plait.reporting.theme import BLUE, GREEN, GREY, GRID, ORANGE, PINK, RED, SKY, VIOLET, Picture, finish, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_NUCLEOTIDES = {"A": GREEN, "C": BLUE, "G": ORANGE, "T": RED, "U": RED}
_PROTEIN = {
    **dict.fromkeys("AVLIMFWP", GREY), **dict.fromkeys("GSTYC", GREEN), **dict.fromkeys("NQ", PINK),
    **dict.fromkeys("KRH", BLUE), **dict.fromkeys("DE", RED),
}  # fmt: skip
_PROTEIN_KEY = (
    " Colours: grey water-repelling (AVLIMFWP), green polar (GSTYC), pink amides (NQ), blue positively charged (KRH), "
    "orange-red negatively charged (DE)."
)
_OTHERS = (BLUE, ORANGE, GREEN, RED, SKY, PINK, VIOLET, GREY)
_PER_LINE = 32
_THINNEST = 0.012
_MANY_GLYPHS = 1500


def logos(data: ReportData) -> Picture:
    """Logos of the top offline sequences, of the prior's samples and of the designs, one above the other."""
    top = f"offline top in {data.assay}" if data.aims else "offline top"
    sets = [(top, data.logo_offline), ("prior", data.logo_prior), ("designs", data.logo_designs)]
    present = [
        (name, information(sequences, data.alphabet_letters), len(sequences)) for name, sequences in sets if sequences
    ]
    length = len(present[0][1])
    lines = math.ceil(length / _PER_LINE)
    per_line = math.ceil(length / lines)
    rows = lines * len(present)
    figure = new_figure(10.0 if per_line > 12 else 7.0, 1.15 * rows + 0.4)
    axes = figure.subplots(rows, 1, squeeze=False).ravel()
    is_raster = sum(int((table.to_numpy() > 0).sum()) for _, table, _ in present) > _MANY_GLYPHS
    for line in range(lines):
        for row, (name, table, count) in enumerate(present):
            panel = axes[line * len(present) + row]
            part = table.iloc[line * per_line : (line + 1) * per_line]
            _draw(panel, part, data, per_line, is_raster=is_raster)
            panel.set_ylabel("bits")
            panel.set_title(f"{name} ({count:,} sequences)", fontsize=9.5)
            if row == len(present) - 1:
                panel.set_xlabel("position")
    key = _PROTEIN_KEY if _is_protein(data.alphabet_letters) else ""
    return finish(
        figure,
        "logos",
        "Which letters stand where",
        "The taller a letter, the more of the sequences have it at that position; an empty position may hold "
        f"anything, and shaded positions are fixed by the template.{key}",
        "Sequence logos by position. Most frequent letters: "
        + "; ".join(f"{name} {consensus(sequences)}" for name, sequences in sets if sequences)
        + ".",
    )


def information(sequences: tuple[str, ...], letters: str) -> pd.DataFrame:
    """Letter heights in bits, rows positions from 1, columns letters; letters thinner than a hairline are left out.

    Height is the letter's frequency times the position's information, log2 V minus its entropy, from frequencies
    with one pseudocount spread over the V letters.
    """
    import logomaker
    import pandas as pd

    codes = np.array([list(sequence) for sequence in sequences])
    counts = pd.DataFrame(
        {letter: (codes == letter).sum(0).astype(float) for letter in letters}, index=range(1, codes.shape[1] + 1)
    )
    bits = logomaker.transform_matrix(counts, from_type="counts", to_type="information", pseudocount=1 / len(letters))
    return pd.DataFrame(bits).where(bits > _THINNEST * math.log2(len(letters)), 0.0)


def consensus(sequences: tuple[str, ...]) -> str:
    """The most frequent letter of each position; the first of the alphabet among equals."""
    return "".join(max(sorted(set(column)), key=column.count) for column in zip(*sequences, strict=True))


def _is_protein(letters: str) -> bool:
    return len(letters) >= 20 and set("DEFHIKLMNPQRSVWY") <= set(letters)


def _scheme(letters: str) -> dict[str, str]:
    if set(letters) <= set(_NUCLEOTIDES):
        return {letter: _NUCLEOTIDES[letter] for letter in letters}
    if _is_protein(letters):
        return {letter: _PROTEIN.get(letter, GREY) for letter in letters}
    return {letter: _OTHERS[i % len(_OTHERS)] for i, letter in enumerate(letters)}


def _draw(panel: Axes, part: pd.DataFrame, data: ReportData, per_line: int, *, is_raster: bool) -> None:
    import logomaker

    first, last = int(part.index[0]), int(part.index[-1])
    for position in range(first, last + 1):
        if position <= len(data.template) and data.template[position - 1] in data.alphabet_letters:
            panel.axvspan(position - 0.5, position + 0.5, color=GRID, alpha=0.6, linewidth=0, zorder=0)
    if part.to_numpy().any():  # logomaker warns of a logo without a letter
        logo = logomaker.Logo(
            part,
            ax=panel,
            color_scheme=_scheme(data.alphabet_letters),
            font_name="DejaVu Sans",
            baseline_width=0.0,
            show_spines=None,
        )
        for glyph in logo.glyph_list:
            if glyph.patch is not None:
                glyph.patch.set_rasterized(is_raster)
                glyph.patch.set_linewidth(0.0)
    panel.set_xlim(first - 0.5, first + per_line - 0.5)
    panel.set_ylim(0, math.log2(len(data.alphabet_letters)))
    panel.set_yticks(range(math.floor(math.log2(len(data.alphabet_letters))) + 1))
    step = 1 if per_line <= 12 else 2 if per_line <= 20 else 5
    panel.set_xticks([p for p in range(first, last + 1) if p == 1 or p % step == 0])
