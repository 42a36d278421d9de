"""What came out, as the report counts it: outcomes by method and round, which is better, what was over-promised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.campaign.report_data import AssayAim, MethodResult, ReportData, RoundSummary, TrajectoryPoint
from plait.reporting.theme import METHODS, decimals_for

Values = NDArray[np.float64]

CONSERVATIVE = ("braid_boot", "braid_bonus")
_COMPARED = ("best_of_n", "strl", "drakes", "braid_boot", "braid_bonus", "exhaustive")


def finite(values: tuple[float | None, ...]) -> Values:
    """The numbers among values, (k,)."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def direction(data: ReportData | AssayAim) -> float:
    """+1 where higher is better, -1 where lower is."""
    return 1.0 if data.goal == "maximize" else -1.0


def better_word(data: ReportData | AssayAim) -> str:
    """Which way is better, for axis labels and sentences."""
    return "higher is better" if data.goal == "maximize" else "lower is better"


def outcome_word(data: ReportData) -> str:
    """What stands for the truth in the comparison of methods: "measured", or "judged" where there is none."""
    return "measured" if data.has_truth else "judged"


def best_of(data: ReportData, values: Values) -> float:
    """The best of values (n,), NaN for none."""
    if len(values) == 0:
        return float("nan")
    return float(values.max() if data.goal == "maximize" else values.min())


def value_decimals(data: ReportData) -> int:
    """Decimals for values in the assay's unit."""
    values = finite(data.benchmark.values)
    return decimals_for(float(values.std()) if len(values) else 0.0)


def ordered_methods(data: ReportData) -> list[MethodResult]:
    """Methods in the order of every table and figure; unknown ones last."""
    names = list(METHODS)
    return sorted(data.methods, key=lambda m: (names.index(m.method) if m.method in names else len(names), m.method))


def _paired(data: ReportData, method: MethodResult) -> tuple[Values, Values]:
    outcomes = method.measured if data.has_truth else method.judged
    if outcomes is None:
        return np.zeros(0), np.zeros(0)
    proxy = np.array(method.proxy, dtype=np.float64)
    truth = np.array([np.nan if value is None else value for value in outcomes], dtype=np.float64)
    known = np.isfinite(truth) & np.isfinite(proxy)
    return proxy[known], truth[known]


def outcomes_of(data: ReportData, method: MethodResult) -> Values:
    """Measured values of a method's designs, or the judge's where there is no truth, (k,)."""
    return _paired(data, method)[1]


def over_promise(data: ReportData, method: MethodResult) -> float:
    """Median over designs of how much better the proxy was than the outcome, in the assay's unit; NaN for none."""
    proxy, truth = _paired(data, method)
    return float(np.median(direction(data) * (proxy - truth))) if len(truth) else float("nan")


@dataclass(frozen=True)
class Contest:
    """How the methods compare by median outcome, the collapsed ones set aside.

    Attributes:
        winner: The method with the best median, None where nothing can be compared.
        rival: The best of the others.
        is_clear: The winner leads the rival by more than two standard errors of the medians.
        braid: The better of the BRAID methods, None where none took part.
    """

    winner: MethodResult | None
    rival: MethodResult | None
    is_clear: bool
    braid: MethodResult | None


def compare(data: ReportData) -> Contest:
    """The contest of the methods that optimise."""
    known = [m for m in data.methods if m.method in _COMPARED and not m.is_collapsed and len(outcomes_of(data, m))]
    ranked = sorted(known, key=lambda m: -direction(data) * float(np.median(outcomes_of(data, m))))
    braid = next((m for m in ranked if m.method in CONSERVATIVE), None)
    if len(ranked) < 2:
        return Contest(ranked[0] if ranked else None, None, False, braid)
    return Contest(ranked[0], ranked[1], is_clearly_apart(data, ranked[0], ranked[1]), braid)


def is_clearly_apart(data: ReportData, a: MethodResult, b: MethodResult) -> bool:
    """Whether two methods' medians differ by over two standard errors, 1.25 sd / sqrt n each.

    Never with fewer than 8 designs on either side.
    """
    x, y = outcomes_of(data, a), outcomes_of(data, b)
    if min(len(x), len(y)) < 8:
        return False
    error = 1.25 * np.sqrt(x.var() / len(x) + y.var() / len(y))
    return bool(abs(np.median(x) - np.median(y)) > 2 * error)


def trajectory_of(data: ReportData, method: str) -> list[TrajectoryPoint]:
    """A method's points by update."""
    return sorted((p for p in data.trajectories if p.method == method), key=lambda p: p.update)


def trajectory_methods(data: ReportData) -> list[str]:
    """Methods with a trajectory, in the order of every figure."""
    present = {p.method for p in data.trajectories}
    return [name for name in METHODS if name in present] + sorted(present - METHODS.keys())


@dataclass(frozen=True)
class OverOptimisation:
    """A method whose outcome fell from its peak while the proxy did not: values in the assay's unit."""

    method: str
    proxy_at_peak: float
    proxy_at_end: float
    outcome_at_peak: float
    outcome_at_end: float


def over_optimised(data: ReportData) -> list[OverOptimisation]:
    """Methods that ended worse than their own best by over a quarter of the data's deviation, unseen by the proxy."""
    values = finite(data.benchmark.values)
    tolerance = 0.25 * float(values.std()) if len(values) else 0.0
    sign, found = direction(data), []
    for method in trajectory_methods(data):
        points = trajectory_of(data, method)
        outcomes = [p.measured if data.has_truth else p.judged for p in points]
        known = [(p, float(o)) for p, o in zip(points, outcomes, strict=True) if o is not None and np.isfinite(o)]
        if len(known) < 2:
            continue
        (peak, at_peak), (end, at_end) = max(known, key=lambda pair: sign * pair[1]), known[-1]
        if sign * (at_peak - at_end) > tolerance and sign * (end.proxy - peak.proxy) >= 0:
            found.append(OverOptimisation(method, peak.proxy, end.proxy, at_peak, at_end))
    return found


@dataclass(frozen=True)
class MeasuredDesign:
    """A design with what was predicted and read; measured NaN where it was not."""

    round: int
    rank: int
    sequence: str
    predicted: float
    predicted_std: float
    measured: float


def designs_of(summary: RoundSummary) -> list[MeasuredDesign]:
    """A round's designs by rank."""
    rows = zip(summary.sequences, summary.predicted_mean, summary.predicted_std, summary.measured, strict=True)
    return [
        MeasuredDesign(summary.number, rank, sequence, mean, std, float("nan") if value is None else value)
        for rank, (sequence, mean, std, value) in enumerate(rows, start=1)
    ]


def best_designs(data: ReportData, count: int) -> list[MeasuredDesign]:
    """The best measured designs of all rounds; the first ranks of the last round where nothing is measured yet."""
    everything = [design for summary in data.rounds for design in designs_of(summary)]
    measured = [design for design in everything if np.isfinite(design.measured)]
    if not measured:
        return designs_of(data.rounds[-1])[:count] if data.rounds else []
    return sorted(measured, key=lambda d: -direction(data) * d.measured)[:count]
