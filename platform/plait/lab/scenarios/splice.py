"""BRCA2 exon 17 5' splice sites: a simulated lab that replays real readings.

A campaign starts from replicate 1; the lab answers with replicate 2, an independent run of the same assay. What
replicate 2 did not measure comes back failed. data/SOURCE.md says where the readings come from and how noisy they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from plait.design.alphabets import DNA
from plait.design.errors import BadInputError
from plait.design.records import Readings
from plait.design.space import DesignSpace

DATA_FILE = Path(__file__).parent / "data" / "splice.csv.gz"
OFFLINE, LAB = "replicate_1", "replicate_2"


class SpliceScenario:
    """Nine letters around a 5' splice site, three of the exon and six of the intron, with G[CT] at positions 4 and 5.

    Readings are log10 of the percentage of transcripts that include the exon (percent spliced in), relative to the
    consensus site CAGGTAAGT, which is 2 (100 %): more is better.
    """

    name = "splice"
    title = "BRCA2 exon 17 5' splice sites (real measurements)"
    source = (
        "Wong MS, Kinney JB, Krainer AR (2018). Quantitative activity profile and context dependence of all human "
        "5' splice sites. Molecular Cell 71(6):1012-1026."
    )
    alphabet = DNA
    template = "NNNGYNNNN"
    unit = "log10 PSI"

    def offline_readings(self, percentile: float = 90, size: int = 2_000, seed: int = 0) -> Readings:
        """`size` readings of replicate 1, drawn without replacement from those at or below its `percentile` (0 to 100).

        Raises:
            BadInputError: Fewer readings lie there.
        """
        values = _table()[OFFLINE].dropna()
        kept = values[values <= np.percentile(values, percentile)]
        if size > len(kept):
            raise BadInputError(f"{size} readings asked for, {len(kept)} lie at or below percentile {percentile:g}")
        chosen = kept.iloc[np.random.default_rng(seed).choice(len(kept), size, replace=False)]
        return Readings(tuple(chosen.index), chosen.to_numpy(dtype=np.float64), ("1",) * size)

    def corpus(self) -> tuple[str, ...]:
        """The distinct natural human 5' splice sites with G[CT] at positions 4 and 5, sorted; 10,227.

        How often a site occurs in the genome is left out: it tells how well a site works.
        """
        table = _table()
        return tuple(table.index[table["is_natural"] == 1])

    def measure(self, sequences: Sequence[str]) -> list[float | None]:
        """Replicate 2's reading of each sequence, in log10 PSI; None (a failed well) where it has none."""
        readings = _table()[LAB].reindex(list(sequences))
        return [None if np.isnan(value) else float(value) for value in readings]

    def covers(self, space: DesignSpace) -> bool:
        """Whether sequences of its template may lie in the space."""
        return DesignSpace.from_template(self.alphabet, self.template).overlaps(space)

    def truth(self) -> dict[str, float]:
        """Mean of the two replicates, in log10 PSI, of the 29,593 sequences that both measured."""
        means = _table()[[OFFLINE, LAB]].mean(axis=1, skipna=False).dropna()
        return dict(zip(means.index, means.tolist(), strict=True))


@cache
def _table() -> pd.DataFrame:
    """Replicates (float64, NaN where not measured) and is_natural by sequence, sorted."""
    return pd.read_csv(DATA_FILE, index_col="sequence", dtype={OFFLINE: "float64", LAB: "float64"})


SCENARIO = SpliceScenario()
