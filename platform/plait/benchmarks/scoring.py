"""What a campaign was worth: its designs as proposed, as the lab read them, and as they truly are, in one row.

The truth is the task's; no model of the campaign ever saw it. A method whose samples mostly repeat each other has
collapsed: that is a failure, whatever its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.benchmarks.tasks import Task
from plait.campaign.ports import Ports
from plait.campaign.race import EXHAUSTIVE
from plait.campaign.records import Design
from plait.design.records import Dataset, to_dataset
from plait.metrics.diversity import kmer_correlation, mean_pairwise_distance, novelty
from plait.metrics.ranks import quantile_summary

Values = NDArray[np.float64]

TOP = 0.01
"""Share of a landscape that counts as its top."""
MANY_TOP = 50
FEWEST_UNIQUE = 0.5
"""Share of distinct samples below which a method has collapsed."""


@dataclass(frozen=True)
class Batch:
    """One round's designs by rank, as proposed and as read.

    Attributes:
        number: Of the round, from 1.
        designs: As they were proposed.
        readings: The lab's, in the designs' order; None where the well failed.
        unique_fraction: Share of distinct designs among as many of the sampler's draws as a plate has wells.
        pass_rate: Share of the distinct candidates that passed constraints and support gate.
        seconds: Of all the round's stages.
    """

    number: int
    designs: tuple[Design, ...]
    readings: tuple[float | None, ...]
    unique_fraction: float
    pass_rate: float
    seconds: float


@dataclass(frozen=True)
class Scores:
    """What a campaign reached; values are true ones in the assay's unit unless said otherwise, None where unknown.

    Attributes:
        rounds: Rounds that were closed.
        wells: Designs that were sent to the lab.
        median, q10, q90, best: Of the last round's batch.
        best_so_far: Over all rounds.
        offline_best: Of the items that the campaign started from.
        proxy: Median of what the last round's reward model predicted for its batch.
        gap: Mean of prediction less truth over the last round's batch: above 0 promised too much.
        elbo_per_token: Prior ELBO of the last batch, nats per free position, mean; higher is more natural.
        kmer_correlation: Pearson correlation of 3-mer frequencies of the last batch and the best offline items.
        diversity: Mean pairwise normalised Hamming distance within the last batch.
        novelty: Median Hamming distance of the last batch to the nearest offline item.
        unique_fraction: Of a plate of the last round's draws.
        pass_rate: Of the last round's candidates, constraints and support gate.
        top_share: Share of the last plate's wells in the true top 1 %; a well without a design counts as a miss.
        wells_to_first, wells_to_50: Wells up to the first, the 50th design in the true top 1 %, by round and rank.
        best_by_round, median_by_round, gap_by_round, top_share_by_round: By round; best over the rounds so far.
        seconds: Of all stages of all rounds.
    """

    rounds: int
    wells: int
    median: float | None
    q10: float | None
    q90: float | None
    best: float | None
    best_so_far: float | None
    offline_best: float | None
    proxy: float
    gap: float | None
    elbo_per_token: float | None
    kmer_correlation: float
    diversity: float
    novelty: float
    unique_fraction: float
    pass_rate: float
    top_share: float | None
    wells_to_first: int | None
    wells_to_50: int | None
    best_by_round: tuple[float | None, ...]
    median_by_round: tuple[float | None, ...]
    gap_by_round: tuple[float | None, ...]
    top_share_by_round: tuple[float | None, ...]
    seconds: float

    @property
    def is_collapsed(self) -> bool:
        """The method mostly repeated itself."""
        return self.unique_fraction < FEWEST_UNIQUE


def collect(ports: Ports, campaign: str) -> tuple[Batch, ...]:
    """The batches of a campaign's rounds, oldest first."""
    with ports.repository.begin() as uow:
        stages = {(s.round, s.stage): s for s in uow.stages(campaign)}
        proposed = {r.number: tuple(uow.designs(campaign, r.number)) for r in uow.rounds(campaign)}
        results = uow.results(campaign)
    read: dict[str, list[float]] = {}
    for result in results:
        if result.value is not None:
            read.setdefault(result.design_id, []).append(result.value)
    batches = []
    for number, designs in proposed.items():
        pool = ports.artifacts.get_json(stages[number, "sample"].outputs["pool"])
        funnel = stages[number, "filter"].outputs["funnel"]
        batches.append(
            Batch(
                number,
                designs,
                tuple(float(np.mean(read[d.design_id])) if d.design_id in read else None for d in designs),
                unique_of([s for source, drawn in pool if source != EXHAUSTIVE for s in drawn]),
                funnel["supported"] / max(1, funnel["distinct"]),
                sum(s.seconds for (of, _), s in stages.items() if of == number or (of == 0 and number == 1)),
            )
        )
    return tuple(batches)


def unique_of(draws: Sequence[str], size: int = 96) -> float:
    """Share of distinct sequences among `size` of a sampler's draws, taken at random, all of them if there are fewer.

    Of a plate, not of all draws: on a small space a good sampler meets its best designs again and again.
    """
    chosen = np.random.default_rng(0).permutation(len(draws))[:size]
    return len({draws[i] for i in chosen}) / max(1, len(chosen))


def top_threshold(task: Task) -> float | None:
    """The truth from which an item belongs to the best 1 % of the landscape; None where it cannot be listed."""
    everything = task.everything()
    if everything is None:
        return None
    values = np.sort(everything[1])[::-1]
    return float(values[max(1, round(TOP * len(values))) - 1])


def score(task: Task, seed: int, batches: Sequence[Batch], plate: int | None = None) -> Scores:
    """The scores of a campaign's batches, at least one.

    Args:
        task: What it was to solve.
        seed: Of its offline readings.
        batches: As `collect` gives them.
        plate: Wells of a round; the task's by default.
    """
    plate = plate or task.batch_size
    offline = to_dataset(task.offline(seed), task.space, unit=task.unit)
    truths = [_truth(task, batch) for batch in batches]
    best = np.fmax.accumulate([_max(truth) for truth in truths])
    threshold = top_threshold(task)
    is_top = [truth >= threshold for truth in truths] if threshold is not None else None
    last, tokens = batches[-1], task.space.canonical(task.space.encode([d.sequence for d in batches[-1].designs]))
    known = truths[-1][np.isfinite(truths[-1])]
    of_last = quantile_summary(known)
    elbo = np.array([d.details["elbo_per_token"] for d in last.designs], dtype=np.float64)
    return Scores(
        rounds=len(batches),
        wells=sum(len(batch.designs) for batch in batches),
        median=of_last.get("median"),
        q10=of_last.get("q10"),
        q90=of_last.get("q90"),
        best=of_last.get("best"),
        best_so_far=_known(best[-1]),
        offline_best=_known(_max(task.truth(offline.tokens))),
        proxy=float(np.median([d.predicted_mean for d in last.designs])),
        gap=_gap(last, truths[-1]),
        elbo_per_token=_known(_mean(elbo)),
        kmer_correlation=kmer_correlation(tokens, _top_of(offline), task.space.alphabet.size),
        diversity=mean_pairwise_distance(tokens),
        novelty=float(np.median(novelty(tokens, offline.tokens))),
        unique_fraction=last.unique_fraction,
        pass_rate=last.pass_rate,
        top_share=float(is_top[-1].sum() / plate) if is_top else None,
        wells_to_first=_wells_to(is_top, 1),
        wells_to_50=_wells_to(is_top, MANY_TOP),
        best_by_round=tuple(map(_known, best)),
        median_by_round=tuple(_known(float(np.nanmedian(t)) if np.isfinite(t).any() else np.nan) for t in truths),
        gap_by_round=tuple(_gap(batch, truth) for batch, truth in zip(batches, truths, strict=True)),
        top_share_by_round=tuple(float(top.sum() / plate) for top in is_top) if is_top else (None,) * len(batches),
        seconds=sum(batch.seconds for batch in batches),
    )


def design_rows(task: Task, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """One row per design: what was predicted, read, and true; what is unknown is None."""
    threshold = top_threshold(task)
    return [
        {
            "round": batch.number,
            "rank": design.rank,
            "sequence": design.sequence,
            "source": design.source,
            "predicted_mean": design.predicted_mean,
            "predicted_std": design.predicted_std,
            "conservative": design.conservative,
            "judged": design.details.get("judged"),
            "elbo_per_token": design.details.get("elbo_per_token"),
            "reading": reading,
            "truth": _known(truth),
            "is_top": None if threshold is None else bool(truth >= threshold),
        }
        for batch in batches
        for design, reading, truth in zip(batch.designs, batch.readings, _truth(task, batch), strict=True)
    ]


def _truth(task: Task, batch: Batch) -> Values:
    return task.truth(task.space.encode([d.sequence for d in batch.designs]))


def _top_of(offline: Dataset) -> NDArray[np.int64]:
    """The best twentieth of the offline items, at least 20."""
    return offline.tokens[np.argsort(-offline.values, kind="stable")[: max(20, len(offline) // 20)]]


def _gap(batch: Batch, truth: Values) -> float | None:
    return _known(_mean(np.array([d.predicted_mean for d in batch.designs]) - truth))


def _wells_to(is_top: list[NDArray[np.bool_]] | None, count: int) -> int | None:
    found = np.flatnonzero(np.concatenate(is_top)) if is_top else np.zeros(0, dtype=np.int64)
    return int(found[count - 1]) + 1 if len(found) >= count else None


def _mean(values: Values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _max(values: Values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else float("nan")


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
