"""What a campaign's report shows, gathered by campaign.gather and drawn by the reporting room. JSON-able.

All values are in the assay's unit and direction as it was registered; `goal` says which way is better. Where a
simulated lab knows the truth of every design, `measured` holds it; else it is None and the judge stands in.
"""

from __future__ import annotations

from dataclasses import dataclass

from plait.campaign.sweep_results import SweepResult
from plait.design.records import Goal


@dataclass(frozen=True)
class DataBenchmark:
    """What the data can teach, said before any design.

    Attributes:
        num_items: Distinct items.
        num_readings: Rows.
        values: Item means (for a histogram), at most 5,000.
        noise_std: Standard deviation of one reading, None where neither replicates nor stds tell it.
        noise_source: "replicates", "std column" or "" (unknown).
        ceiling: Best attainable Spearman correlation with these labels given the noise, or None.
        held_out_spearman: Of the reward ensemble on held-out clusters.
        coverage_90: Share of held-out readings inside the 90% interval.
        warning: A plain sentence where labels are mostly noise or nothing can be learnt, else "".
        predicted: Held-out predictions, beside `observed`.
        observed: Held-out readings.
    """

    num_items: int
    num_readings: int
    values: tuple[float, ...]
    noise_std: float | None
    noise_source: str
    ceiling: float | None
    held_out_spearman: float
    coverage_90: float
    warning: str
    predicted: tuple[float, ...]
    observed: tuple[float, ...]


@dataclass(frozen=True)
class MethodResult:
    """A batch made by one method from round 1's data.

    Attributes:
        method: offline, prior, best_of_n, strl, drakes, braid_boot, braid_bonus, exhaustive.
        sequences: The batch (for offline: the best measured items).
        proxy: Predicted mean of the optimiser's reward, per design.
        judged: Predicted mean of the judge, per design.
        measured: The truth per design, None entries where it was never measured; None where there is no truth.
        unique_fraction: Of the raw samples, before duplicates were dropped; None for offline and exhaustive.
        diversity: Mean pairwise normalised Hamming distance.
        novelty: Median Hamming distance to the nearest offline item.
        elbo_per_token: Prior ELBO, nats per free position, mean.
        kmer_correlation: Pearson correlation of 3-mer frequencies with the top offline sequences.
        kl: Path KL of the policy against the prior, nats, None where there is no policy.
        pass_rate: Share of raw samples that pass constraints and support gate.
        top_share: Share of the batch's measured designs in the true top 1% of the whole table, None without truth.
        seconds: Wall time.
        is_collapsed: unique_fraction < 0.5 (a failure, whatever its score).
    """

    method: str
    sequences: tuple[str, ...]
    proxy: tuple[float, ...]
    judged: tuple[float, ...]
    measured: tuple[float | None, ...] | None
    unique_fraction: float | None
    diversity: float
    novelty: float
    elbo_per_token: float
    kmer_correlation: float
    kl: float | None
    pass_rate: float
    top_share: float | None
    seconds: float
    is_collapsed: bool


@dataclass(frozen=True)
class TrajectoryPoint:
    """One look at a policy during fine-tuning: means over 64 fresh designs."""

    method: str
    update: int
    kl: float
    proxy: float
    conservative: float
    judged: float
    measured: float | None


@dataclass(frozen=True)
class AssayAim:
    """What a campaign of several assays wants of one of them, and what was measured in it before any design.

    Attributes:
        assay: Its name.
        dataset_version: Number of the dataset's version that round 1 learnt from.
        unit: Of its readings.
        goal: Which way is better.
        weight: Its say among the assays; 0 keeps only the threshold.
        threshold: What a design must reach, None for no constraint.
        offline: Mean reading per item, over the items of all assays, in the same order in each; None where this assay
            did not measure the item.
    """

    assay: str
    dataset_version: str
    unit: str
    goal: Goal
    weight: float
    threshold: float | None
    offline: tuple[float | None, ...]


@dataclass(frozen=True)
class FurtherAssay:
    """What a round's designs promised and read in an assay beside the campaign's own.

    Attributes:
        name: Its dataset.
        unit: Of predictions and readings.
        goal: Which way is better.
        predicted_mean: By rank.
        predicted_std: By rank.
        measured: By rank: mean reading, None where failed or open.
        measured_spearman: Predicted against measured, None with fewer than 8 readings.
        coverage_90: Share of readings inside the predicted 90% interval, None likewise.
    """

    name: str
    unit: str
    goal: Goal
    predicted_mean: tuple[float, ...]
    predicted_std: tuple[float, ...]
    measured: tuple[float | None, ...]
    measured_spearman: float | None
    coverage_90: float | None


@dataclass(frozen=True)
class RoundSummary:
    """One round as proposed and as measured.

    Attributes:
        number: From 1.
        state: RoundState.
        funnel: Ordered (stage, count) pairs: sampled, enumerated, distinct, feasible,
            supported, natural, new, selected (and cleared by screening).
        rejected: Reason -> count of what the filters rejected.
        sequences: Proposed designs by rank.
        predicted_mean: By rank.
        predicted_std: By rank.
        measured: By rank: mean reading, None where failed or open.
        diversity: Mean pairwise normalised Hamming distance of the batch.
        novelty: Median Hamming distance to the nearest item of the round's dataset.
        held_out_spearman: Of the round's reward.
        measured_spearman: Predicted against measured, None with fewer than 8 readings.
        coverage_90: Share of readings inside the predicted 90% interval, None likewise.
        actor: Who approved, "" while nobody has.
        conservatism: Such as "boot, scale 0.5".
        kl: Path KL of the round's policy in nats.
        unique_fraction: Share of distinct designs among the policy's samples; below 0.5 it has collapsed.
        further: The assays beside the campaign's own, which the figures above are of.
    """

    number: int
    state: str
    funnel: tuple[tuple[str, int], ...]
    rejected: dict[str, int]
    sequences: tuple[str, ...]
    predicted_mean: tuple[float, ...]
    predicted_std: tuple[float, ...]
    measured: tuple[float | None, ...]
    diversity: float
    novelty: float
    held_out_spearman: float
    measured_spearman: float | None
    coverage_90: float | None
    actor: str
    conservatism: str
    kl: float | None
    unique_fraction: float
    further: tuple[FurtherAssay, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything one report shows.

    `aims` are the assays of a campaign of several, its own first, else empty; `sweeps` those of the rounds that swept.
    """

    campaign: str
    assay: str
    dataset: str
    dataset_version: str
    unit: str
    goal: Goal
    alphabet_letters: str
    template: str
    space_size: int
    notes: tuple[str, ...]
    has_truth: bool
    offline_best: float
    offline_median: float
    top_threshold: float | None
    benchmark: DataBenchmark
    methods: tuple[MethodResult, ...]
    trajectories: tuple[TrajectoryPoint, ...]
    rounds: tuple[RoundSummary, ...]
    logo_offline: tuple[str, ...]
    logo_prior: tuple[str, ...]
    logo_designs: tuple[str, ...]
    plait_version: str
    created_at: str
    aims: tuple[AssayAim, ...] = ()
    scalarisation: str = ""
    sweeps: tuple[SweepResult, ...] = ()
