"""A made-up but plausible campaign: rewards with structure, methods that win and fail, three rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from plait.campaign.report_data import DataBenchmark, MethodResult, ReportData, RoundSummary, TrajectoryPoint
from plait.design.alphabets import DNA, Alphabet

METHOD_SHIFTS = {
    "offline": (0.9, 0.05),
    "prior": (-0.6, 0.0),
    "best_of_n": (1.0, 0.2),
    "strl": (0.4, 1.6),
    "drakes": (1.3, 0.7),
    "braid_boot": (1.5, 0.3),
    "braid_bonus": (1.4, 0.25),
    "exhaustive": (1.8, 0.4),
}


FUNNEL = {
    "sampled": 4000,
    "enumerated": 32768,
    "feasible": 30111,
    "supported": 24010,
    "novel": 22214,
    "selected": 96,
    "cleared": 96,
}


@dataclass(frozen=True)
class World:
    """Everything that makes up values and sequences."""

    generator: np.random.Generator
    alphabet: Alphabet
    template: str
    sign: float

    def sequences(self, n: int, sharpness: float) -> tuple[str, ...]:
        logits = np.random.default_rng(5).normal(size=(len(self.template), self.alphabet.size)) * sharpness
        weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        columns = [
            self.generator.choice(list(self.alphabet.letters), size=n, p=row)
            if letter in ("N", "X")
            else self.generator.choice(list(self.alphabet.wildcards[letter]), size=n)
            for letter, row in zip(self.template, weights, strict=True)
        ]
        return tuple("".join(row) for row in zip(*columns, strict=True))

    def values(self, mean: float, n: int) -> np.ndarray:
        return self.sign * (mean + 0.45 * self.generator.normal(size=n))


def _benchmark(world: World) -> DataBenchmark:
    values = world.sign * np.concatenate([world.generator.normal(-0.7, 0.5, 1500), world.generator.gamma(2, 0.35, 500)])
    observed = values[::5]
    predicted = 0.7 * observed + world.generator.normal(0, 0.35, len(observed))
    return DataBenchmark(
        num_items=2000,
        num_readings=3800,
        values=tuple(values.tolist()),
        noise_std=0.28,
        noise_source="replicates",
        ceiling=0.86,
        held_out_spearman=0.71,
        coverage_90=0.88,
        warning="",
        predicted=tuple(predicted.tolist()),
        observed=tuple(observed.tolist()),
    )


def _method(world: World, name: str) -> MethodResult:
    mean, promise = METHOD_SHIFTS[name]
    n, is_collapsed = 96, name == "strl"
    truth = world.values(mean, n)
    proxy = truth * 0.7 + world.sign * (0.3 * mean + promise) + world.generator.normal(0, 0.15, n)
    measured = tuple(None if i % 12 == 7 else float(v) for i, v in enumerate(truth))
    is_sampled = name not in ("offline", "exhaustive")
    return MethodResult(
        method=name,
        sequences=world.sequences(n, 1.0),
        proxy=tuple(proxy.tolist()),
        judged=tuple((truth + world.generator.normal(0, 0.2, n)).tolist()),
        measured=measured,
        unique_fraction=(0.11 if is_collapsed else 0.93) if is_sampled else None,
        diversity=0.08 if is_collapsed else 0.51,
        novelty=1.0 if name != "offline" else 0.0,
        elbo_per_token=-1.21 + 0.1 * mean,
        kmer_correlation=0.62,
        kl=7.5 if is_collapsed else None,
        pass_rate=0.974,
        top_share=0.31,
        seconds=21.7,
        is_collapsed=is_collapsed,
    )


def _trajectories(world: World) -> tuple[TrajectoryPoint, ...]:
    points = []
    for method, reach in (("strl", 16.0), ("drakes", 7.0), ("braid_boot", 4.5), ("braid_bonus", 4.0)):
        for update in range(0, 101, 10):
            kl = reach * (update / 100) ** 0.8
            proxy = -0.6 + 2.6 * (1 - np.exp(-kl / 3))
            truth = proxy - 0.012 * kl**2 * (1 if method == "strl" else 0.4) + world.generator.normal(0, 0.04)
            points.append(
                TrajectoryPoint(
                    method=method,
                    update=update,
                    kl=kl,
                    proxy=world.sign * proxy,
                    conservative=world.sign * (proxy - 0.2),
                    judged=world.sign * (truth + 0.15),
                    measured=world.sign * float(truth),
                )
            )
    return tuple(points)


def _round(world: World, number: int) -> RoundSummary:
    n = 96
    truth = world.values(0.8 + 0.45 * number, n)
    mean = truth * 0.6 + world.sign * (0.4 + 0.2 * number) + world.generator.normal(0, 0.2, n)
    measured = tuple(None if i % 16 == 3 else float(v) for i, v in enumerate(truth))
    return RoundSummary(
        number=number,
        state="closed",
        funnel=tuple(FUNNEL.items()),
        rejected={"3-mer GGG was never measured": 6101 // number, "homopolymer of 5": 2657, "deny-list": 0},
        sequences=world.sequences(n, 1.2 + 0.3 * number),
        predicted_mean=tuple(mean.tolist()),
        predicted_std=tuple((0.25 + 0.1 * world.generator.random(n)).tolist()),
        measured=measured,
        diversity=0.55 - 0.05 * number,
        novelty=float(4 - number / 2),
        held_out_spearman=0.69 + 0.02 * number,
        measured_spearman=0.48,
        coverage_90=0.86,
        actor="mara",
        conservatism="boot, scale 0.5",
        kl=3.1,
        unique_fraction=0.81,
    )


def make_report(
    seed: int = 0, *, alphabet: Alphabet = DNA, template: str = "NNNGYNNNN", goal: str = "maximize", rounds: int = 3
) -> ReportData:
    """A full report's data."""
    world = World(np.random.default_rng(seed), alphabet, template, 1.0 if goal == "maximize" else -1.0)
    benchmark = _benchmark(world)
    values = np.array(benchmark.values)
    return ReportData(
        campaign="BRCA2 splice sites",
        assay="log10 PSI",
        dataset="brca2",
        dataset_version="3f1c9a20",
        unit="log10 PSI",
        goal="maximize" if goal == "maximize" else "minimize",
        alphabet_letters=alphabet.letters,
        template=template,
        space_size=alphabet.size ** sum(letter in "NX" for letter in template),
        notes=("The template was read off positions that never vary.", "The lab is simulated: it replays replicate 2."),
        has_truth=True,
        offline_best=float((values * world.sign).max() * world.sign),
        offline_median=float(np.median(values)),
        top_threshold=world.sign * 1.45,
        benchmark=benchmark,
        methods=tuple(_method(world, name) for name in METHOD_SHIFTS),
        trajectories=_trajectories(world),
        rounds=tuple(_round(world, number) for number in range(1, rounds + 1)),
        logo_offline=world.sequences(200, 1.0),
        logo_prior=world.sequences(500, 0.4),
        logo_designs=world.sequences(96, 2.0),
        plait_version="0.1.0",
        created_at="2026-11-21 12:00 UTC",
    )


def make_bare(data: ReportData) -> ReportData:
    """The same campaign before anything came back: no methods, one round without a reading."""
    first = replace(
        data.rounds[0],
        state="proposed",
        measured=(None,) * len(data.rounds[0].sequences),
        measured_spearman=None,
        coverage_90=None,
        actor="",
        kl=None,
        rejected={},
    )
    benchmark = replace(data.benchmark, noise_std=None, noise_source="", ceiling=None, predicted=(), observed=())
    return replace(
        data,
        methods=(),
        trajectories=(),
        rounds=(first,),
        has_truth=False,
        top_threshold=None,
        benchmark=benchmark,
        logo_prior=(),
    )


@pytest.fixture(scope="session")
def report() -> ReportData:
    return make_report()


@pytest.fixture(scope="session")
def make() -> Callable[..., ReportData]:
    return make_report


@pytest.fixture(scope="session")
def strip() -> Callable[[ReportData], ReportData]:
    return make_bare
